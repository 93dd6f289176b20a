"""Results on disk become one page that can be read, printed and mailed.

A report is a view of files: nothing that an analysis held in memory reaches it, so it can be rebuilt at any time.
`entries` reads, `findings` says it in sentences, `figures` and `brains` draw, `methods` cites, `sections` puts it in
order, and `page` writes the file.
"""
