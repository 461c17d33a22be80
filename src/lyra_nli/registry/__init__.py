"""Versions of adapters: what lies on disk, which one serves, and who decided so.

``artifact``    a version's folder, written whole or not at all, verified
``manifest``    what a version was made from, and the digests of its files; ``lineage`` in words
``answers``     what was said of the rows that a version was judged on
``rows``        versions, aliases and the audit log as the database has them
``versions``    the Registry: names, aliases ``active`` and ``previous``, the audit log
``trials``      shadows and canaries; ``trial_rows``, as the database has them
``looks``       how often reviewed rows have judged a candidate before
``export``      a version as a folder or zip file, to carry away
``lyra_table``  Lyra's own ``adapters`` table, kept in step where a database has it

A version never changes once it has its name, and a name is never given twice. The folder is
the truth about the files, the database is the truth about everything else. Nothing here loads
a tensor.
"""
