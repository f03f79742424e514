"""Tables of texts and labels: read, checked, encoded as the task needs them, tokenised.

The four steps, one module each::

    sources.read_table        a file, a folder or a hub name -> a table
    examples.read_examples    a table -> checked columns of text and raw label
    labels.LabelSchema        raw labels -> the ``labels`` that transformers trains on
    tokenising.tokenise       texts -> token ids, unpadded

Every error is a :class:`~frostline.errors.DataError` of one or two lines.
"""
