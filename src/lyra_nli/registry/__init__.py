"""Versions of adapters: what lies on disk, which one serves, and who decided so.

``artifact``    a version's folder: its manifest, written whole or not at all, verified
``versions``    the Registry: names, aliases ``active`` and ``previous``, the audit log
``export``      a version as a folder or zip file, to carry away
``lyra_table``  Lyra's own ``adapters`` table, kept in step where a database has it

A version never changes once it has its name, and a name is never given twice. The folder is
the truth about the files, the database is the truth about everything else. Nothing here loads
a tensor.
"""
