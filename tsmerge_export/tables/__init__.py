"""Tables of series: files read by one reader for every command, and what data frames share with them.

``source`` brings bytes, ``sniff`` and ``cells`` make text cells of them, ``numbers`` and ``times`` read columns,
``roles`` says which column is what, ``axis`` orders time, and ``read`` puts them together: wide or long files, as one
long frame (:func:`read.read_long`) or as series side by side (:func:`read.read_table`).
"""
