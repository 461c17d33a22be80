"""What the pages of the dashboard show, as plain values: one module a page.

A page is a function of a `view`. It reads and changes nothing, and whatever the database is or
lacks, it answers: what could not be read is `missing`, in words.
"""
