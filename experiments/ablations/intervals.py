"""recjax ablate intervals --seeds 3

Is the time since the event before worth a query of its own? Three blocks of attention on MovieLens-1M: of events alone,
with learned biases for gaps in time (Zhai et al. 2024), and with the first block's queries made of intervals (the
attention of IntervalLLM, 2025, without its language model). Beside the ranking of the catalog stand twenty options, and
users with short and with long times between events.

Expected:  not run to its end. On ml-100k, 50 events, 150 steps, one seed (`--set data.dataset=ml-100k --set
           model.max_length=50 --set data.view.max_length=50 --set train.epochs=none --set train.steps=150 --set
           optim.warmup_steps=20`): ndcg@10 events 0.0673, time-bias 0.0685, intervals 0.0567, which is 0.0107
           [0.0028, 0.0185] below events; hr@1 of twenty options 0.399, 0.403, 0.346; all below the floor 0.1063
Time:      4 minutes a cell for that, on a core shared with other work; the whole not measured
Hardware:  2 CPU cores, a cell on each
"""

from recjax.config import RunConfig
from recjax.data.batches.loader import Data
from recjax.data.batches.views import Shifted
from recjax.evaluate.options import Options
from recjax.evaluate.protocol import Evaluate
from recjax.models.next_item import NextItem, matched_settings
from recjax.parallel.mesh import MeshShape
from recjax.train.loop import Train
from recjax.train.optimiser import AdamW

LENGTH = 200
EVENTS = "attention(positions=rotary)"
PATTERNS = {
    "events": EVENTS,
    "time-bias": "attention(positions=rotary; relative=times)",
    "intervals": f"attention(query=interval), {EVENTS}*2",
}


def model(mixer: str = EVENTS) -> NextItem:
    return NextItem(mixer=mixer, width=64, layers=3, heads=2, dropout=0.2, max_length=LENGTH)


def config() -> RunConfig:
    return RunConfig(
        name="intervals",
        data=Data("ml-1m", view=Shifted(max_length=LENGTH, times=True), rows=32),
        model=model(),
        optim=AdamW(learning_rate=3e-3, weight_decay=0.01, clip=5.0, warmup_steps=100, schedule="cosine", hold=0.4),
        mesh=MeshShape(),
        train=Train(epochs=8, evaluate_every=204, validation_users=2048, ema=0.99),
        evaluate=(Evaluate(gap_slices=True), Options(20)),
    )


def tiny() -> dict[str, int]:
    return {"model.width": 8, "model.layers": 1, "model.max_length": 12, "data.view.max_length": 12}


def sweep() -> dict[str, dict[str, str]]:
    return {name: matched_settings(pattern, model()) for name, pattern in PATTERNS.items()}
