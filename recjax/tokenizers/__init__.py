"""Item tokenizers: vectors of items to tuples of codes, so that a model predicts a few small softmaxes, not an id.

tokenizer.py     the one interface, and the whole way from vectors to codes that are saved
item_codes.py    the codes of a catalog and their folder
diagnostics.py   what can be wrong with codes: collisions, slots that are hardly used
collisions.py    what happens to items that share a tuple
preparation.py   centring and scaling of the input
training.py      batches of vectors, and a plain training loop
fsq.py, fsq_model.py     finite scalar quantisation of sub-vectors, as in RecGPT
rq_kmeans.py     residual k-means
hierarchical.py  k-means of clusters of nearly equal size, as in ColaRec
pq.py            product quantisation, as in RPG
mpq.py           parallel mixture quantiser, as in REG4Rec
rq_vae.py, rq_vae_model.py     RQ-VAE, as in TIGER, and the losses of LETTER
"""
