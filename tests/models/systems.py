"""Every system as a tiny run on a planted dataset, for the laws that all of them keep: a new one joins by a line."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from recjax.config import RunConfig
from recjax.data.batches.alterations import Substitute
from recjax.data.batches.derived import Numbered, Prefixes, Shuffled, Users, Windows
from recjax.data.batches.insertions import Insertions
from recjax.data.batches.loader import Data
from recjax.data.batches.partners import AlteredCopy, Partnered
from recjax.data.batches.views import Cloze, NextSession, Shifted
from recjax.data.features.behaviour import Behaviour
from recjax.data.features.columns import Attribute, Codes, Words
from recjax.data.features.graph import GraphVectors
from recjax.data.features.relations import CoOccurrence, Neighbours, SessionCoOccurrence, Transitions
from recjax.data.features.sentences import Sentence
from recjax.data.features.texts import Texts
from recjax.data.features.tokens import Tokens
from recjax.evaluate.protocol import Evaluate
from recjax.models.bert4rec import BERT4Rec
from recjax.models.colarec import ColaRec
from recjax.models.dare import DARE
from recjax.models.discrec import DiscRec
from recjax.models.dual_embeddings import DualEmbeddings
from recjax.models.evidence import Evidence
from recjax.models.gateau import GATEAU
from recjax.models.gream_text import GREAMText
from recjax.models.idnp import IDNP
from recjax.models.ilm import ILM
from recjax.models.insertion import Insertion
from recjax.models.interval_llm import IntervalLLM
from recjax.models.lightgcn import LightGCN
from recjax.models.lite_llm4rec import LiteLLM4Rec
from recjax.models.llm4dsr import LLM4DSR
from recjax.models.lorec import LoRec
from recjax.models.mender import Mender
from recjax.models.mender_text import MenderText
from recjax.models.mmgrec import MMGRec
from recjax.models.model import ModelConfig
from recjax.models.mqsa_ted import MQSATED
from recjax.models.next_item import NextItem
from recjax.models.outfit import OutfitTransformer
from recjax.models.parts.qformer import QFormerConfig
from recjax.models.pisa import PISA
from recjax.models.recformer import Recformer
from recjax.models.recgpt import RecGPT
from recjax.models.recgpt_published import RecGPTPublished
from recjax.models.reg4rec import REG4Rec
from recjax.models.rpg import RPG
from recjax.models.sasrec import SASRec
from recjax.models.setrec import SETRec
from recjax.models.slmrec import SMALL as LLAMA
from recjax.models.slmrec import SLMRec
from recjax.models.sracl import SRACL
from recjax.models.text_lm import TextLM
from recjax.parallel.mesh import MeshShape
from recjax.text.hashed import Hashed
from recjax.text.lm.config import DecoderConfig
from recjax.text.space import Channel, TextSpace
from recjax.tokenizers.hierarchical import HierarchicalKMeans
from recjax.tokenizers.mpq import MPQ
from recjax.tokenizers.pq import PQ
from recjax.tokenizers.rq_kmeans import RQKMeans
from recjax.train.optimiser import Adam
from recjax.train.pretrained import evidence_config
from recjax.train.schedule import Train

ITEMS, USERS, LENGTH, STEPS, CHUNK = 24, 60, 12, 40, 3
KEY = jax.random.key(1)
SMALL = dict(width=8, layers=1, heads=2, max_length=LENGTH)
CATALOG = np.tile(np.arange(1, ITEMS + 1), (8, 1))
"""All items, for each of eight histories."""


def ids(model: ModelConfig, view: Any = Shifted(LENGTH, align="left"), **changes: Any) -> RunConfig:  # noqa: B008
    """A run of a model of item ids."""
    return RunConfig(
        name="law",
        data=Data("planted", view=view, rows=8, pack=changes.pop("pack", True)),
        model=model,
        optim=Adam(learning_rate=0.03),
        mesh=MeshShape(),
        train=Train(steps=STEPS, evaluate_every=0, log_every=1, save_every=STEPS // 2),
        evaluate=Evaluate(),
        **changes,
    )


def texts(model: ModelConfig) -> RunConfig:
    """A run of a model of item texts and their codes."""
    space = TextSpace((Channel(Hashed(16), whiten=False),))
    return ids(model, text=space, tokenizer=RQKMeans(slots=2, clusters=8, collisions="nearest-free"))


COPY = AlteredCopy((Substitute(),))

LAST = Shifted(LENGTH, align="left", targets=1)

NETWORK = dict(width=8, layers=1, heads=2, channels=4, inner=16)
"""Sizes of an encoder-decoder."""

CODED = {
    "behaviour": Behaviour(8),
    "codes": Codes(RQKMeans(slots=2, clusters=8, collisions="nearest-free"), of="behaviour"),
}

EVIDENCE = dict(evidence_config("planted").items)

QUERIES = QFormerConfig(queries=2, width=8, layers=1, heads=2, inner=16)

SYSTEMS = {
    "sasrec": ids(SASRec(**SMALL)),
    "bert4rec": ids(BERT4Rec(**SMALL, inner=16, norm="pre"), Cloze(LENGTH, align="left", mask_prob=0.3)),
    "next-item-lru": ids(NextItem(**SMALL, mixer="lru")),
    "insertion": ids(Insertion(**SMALL, inner=16), Insertions(LENGTH)),
    "evidence": ids(Evidence(last=LENGTH), Shifted(LENGTH, align="left", targets=1), pack=False, items=EVIDENCE),
    "pisa": ids(PISA(**SMALL), NextSession(LENGTH), items={"sessions": SessionCoOccurrence(count=4)}),
    "mqsa-ted": ids(MQSATED(**{**SMALL, "dropout": 0.1}), items={"next": Transitions(count=4, gaps=(1.0,))}),
    "sracl": ids(
        SRACL(**SMALL, memory=32, neighbours=3),
        Partnered(Partnered(Users(Prefixes(Shifted(LENGTH, align="left", targets=1))), COPY, "first"), COPY, "second"),
        pack=False,
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={"neighbours": Neighbours(count=3)},
    ),
    "lorec": ids(
        LoRec(**SMALL, room=USERS, first=1),
        Users(Shifted(LENGTH, align="left")),
        pack=False,
        items={"next": Transitions(count=4, gaps=(1.0,))},
    ),
    "llm4dsr": ids(
        LLM4DSR(**SMALL, inner=16, norm="pre", hard=0.5),
        Cloze(LENGTH, align="left", mask_prob=0.3),
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={"alike": Neighbours(count=3)},
    ),
    "lite-llm4rec": ids(
        LiteLLM4Rec(text="words", column="words", width=8, layers=1, item_layers=1, heads=2, inner=16),
        items={"words": Words(count=4, vocabulary=32)},
    ),
    "slmrec": ids(
        SLMRec(replace(LLAMA, width=8, channels=4, inner=16), teacher=2, parts=2), items={"behaviour": Behaviour(8)}
    ),
    "ilm": ids(
        ILM(QUERIES, base=replace(LLAMA, width=8, layers=1, channels=4, inner=16), room=3),
        pack=False,
        items={"behaviour": Behaviour(8)},
    ),
    "interval-llm": ids(
        IntervalLLM(replace(LLAMA, width=8, layers=1, channels=4, inner=16), width=8),
        Shifted(LENGTH, align="left", times=True),
    ),
    "text-lm": ids(TextLM(DecoderConfig(0, 8, 1, 2, 2, 4, 16)), items={"tokens": Tokens(count=8, vocabulary=300)}),
    "recformer": ids(
        Recformer(width=8, layers=1, inner=16, window=4, tokens=20, dropout=0.0),
        Shifted(LENGTH, align="left", targets=1),
        pack=False,
        items={"sentence": Sentence(("title",), (4,), 5, 40)},
    ),
    "gateau": ids(GATEAU(**SMALL, room=USERS, short=3, first=1), Numbered(Shifted(LENGTH, align="left")), pack=False),
    "outfit": ids(
        OutfitTransformer(width=8, layers=1, heads=2, dropout=0.0),
        Cloze(LENGTH, align="left", mask_prob=0.1),
        pack=False,
    ),
    "dual-embeddings": ids(
        DualEmbeddings(width=8, negatives=4, drawn=16, least=30, synthetic=0.5),
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={"alike": Neighbours(count=3)},
    ),
    "dare": ids(
        DARE(width=8, keep=4, inner=(16,)),
        Windows(Shifted(LENGTH, align="left", targets=1), length=5),
        pack=False,
        items={"category": Attribute("title")},
    ),
    "idnp": ids(IDNP(width=8, heads=2), Shifted(LENGTH, align="left", times=True), pack=False),
    "lightgcn": ids(LightGCN(width=8, layers=2), items={"together": CoOccurrence(count=4)}),
    "rpg": replace(
        texts(RPG(width=8, layers=1, heads=2, max_length=LENGTH, codes=16)),
        tokenizer=PQ(slots=2, clusters=8, iterations=2, rotations=1),
    ),
    "discrec": ids(DiscRec(**NETWORK, codes=8, beam=None), LAST, pack=False, items=CODED),
    "colarec": ids(
        ColaRec(**NETWORK, codes=8, beam=None),
        Cloze(LENGTH, align="left", mask_prob=0.05),
        pack=False,
        items={
            "behaviour": Behaviour(8),
            "codes": Codes(HierarchicalKMeans(slots=1, clusters=8, iterations=2), of="behaviour"),
            "words": Words(count=2, vocabulary=40),
        },
    ),
    "mmgrec": ids(
        MMGRec(**NETWORK, codes=8, beam=None, targets=4),
        Shuffled(Cloze(LENGTH, align="left", mask_prob=0.2)),
        pack=False,
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={
            "graph": GraphVectors(hidden=8, width=8, steps=5, batch=64),
            "codes": Codes(RQKMeans(slots=2, clusters=4, collisions="suffix"), of="graph", popular=True),
        },
    ),
    "reg4rec": ids(
        REG4Rec(**NETWORK, codes=8, beam=None),
        LAST,
        pack=False,
        items={**CODED, "codes": Codes(MPQ(slots=2, clusters=8, hidden=8, width=4, steps=5, batch=32), of="behaviour")},
    ),
    "mender": ids(
        Mender(**NETWORK, codes=8, beam=None, unwanted=0.2),
        LAST,
        pack=False,
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={**CODED, "kinds": Texts(Hashed(8, template="{title}"))},
    ),
    "mender-text": ids(
        MenderText(
            **NETWORK,
            codes=8,
            beam=None,
            unwanted=0.2,
            memory=2,
            room=16,
            base=replace(LLAMA, width=8, layers=1, channels=4, inner=16),
        ),
        LAST,
        pack=False,
        items={
            **CODED,
            "kinds": Texts(Hashed(8, template="{title}")),
            **{
                name: Tokens(template + "{title}", count=4, vocabulary=300, fitted=("looks for {title}",))
                for name, template in (("title", ""), ("wanted", "looks for "), ("unwanted", "avoids "))
            },
        },
    ),
    "gream-text": ids(
        GREAMText(replace(LLAMA, width=8, layers=1, channels=4, inner=16), codes=8, mode="reasoning", beam=None),
        pack=False,
        items={**CODED, "titles": Tokens(count=3, vocabulary=270), "kinds": Tokens(count=3, vocabulary=270)},
    ),
    "setrec": ids(
        SETRec(slots=2, hidden=(12,), **NETWORK),
        LAST,
        pack=False,
        text=TextSpace((Channel(Hashed(16), whiten=False),)),
        items={"behaviour": Behaviour(8)},
    ),
    "recgpt": texts(RecGPT(width=8, layers=1, heads=2, positions=LENGTH, memory=4)),
    "recgpt-published": texts(RecGPTPublished(width=8, layers=1, heads=2, slots=2, aux_width=8, max_items=LENGTH)),
}
