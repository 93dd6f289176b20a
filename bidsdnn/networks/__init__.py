"""Networks: what they are (`network`), where from (`zoo`, `weights`), and what they say (`extract`).

The rest of the package meets torch only through these modules, so importing this one loads nothing heavy.
"""
