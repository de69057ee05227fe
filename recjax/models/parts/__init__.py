"""Networks that several systems share.

t5.py    encoder-decoder in the shape of T5, with incremental decoding
"""
