"""Names of other libraries that are private, have moved, or came late: each in one place.

Everything else in Frostline uses what torch, transformers, datasets, accelerate and PEFT document, or one of these
functions; a test holds it to that. Each says which versions have the name (``In:``), what stands in for it elsewhere
(``Else:``) and what is lost then (``Lost:``): speed, or one feature, never a right answer. Versions without a number
are all that Frostline runs on, which docs/compatibility.md lists.

    tensors.py   what torch keeps about tensors, their memory and their graph
    modules.py   what torch keeps about modules, wrappers of several processes and adapters included
    models.py    configurations, files and names of models, and how transformers loads them
    trainer.py   the steps of transformers.Trainer that have no public name
    tables.py    features of the columns of data sets
"""
