"""Servers of small models on free ports of loopback, and requests to them."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import jax
import numpy as np
import uvicorn

from recjax.data.items import bare_items
from recjax.parallel.mesh import MeshShape
from recjax.serve import app, server
from recjax.serve.catalog import Catalog
from recjax.serve.limits import Limits
from recjax.serve.measures import Measures
from recjax.serve.served import Served
from recjax.serve.service import Service
from tests.evaluate import toy

DATA = toy.dataset()


def served(model: Any = None, params: Any = None, view: Any = toy.VIEW, data: Any = DATA) -> Served:
    """The toy model, or another one, of the toy dataset."""
    model = toy.TwoTables(data.n_items) if model is None else model
    params = model.init(None, None, None) if params is None else params
    titles = [title or "" for title in data.catalog["title"].to_list()]
    counts = np.bincount(data.items, minlength=data.n_items + 1)[1:]
    return Served(
        name="toy",
        step=3,
        dataset=data.name,
        fingerprint=data.fingerprint,
        model=model,
        params=params,
        items=bare_items(data.n_items),
        view=view,
        mask_seen="history",
        catalog=Catalog(data.item_ids[1:], titles, counts),
        mesh=MeshShape().build(jax.devices()[:1]),
    )


@dataclass
class Site:
    """A server that runs in a thread."""

    service: Service
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and content; `body` is sent as JSON, or as it is where it is bytes."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {} if sent is None else {"content-type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, sent, kind | (headers or {}))
            response = connection.getresponse()
            content = response.read()
            found = response.headers.get("content-type", "")
            return response.status, json.loads(content) if "json" in found else content.decode()

    def listed(self, path: str = "/v1/recommend", **body: Any) -> list[str]:
        """Item ids of a list."""
        status, found = self.ask("POST", path, body)
        assert status == 200, found
        assert [item["rank"] for item in found["items"]] == list(range(1, len(found["items"]) + 1))
        return [item["item_id"] for item in found["items"]]


@contextlib.contextmanager
def running(run: Served, limits: Limits | None = None) -> Iterator[Site]:
    """A server of a run."""
    measures = Measures()
    service = Service(run, limits or Limits(k=20, users=3), measures.ranked)
    listener = server.bound("127.0.0.1", 0)
    started = threading.Event()
    config = uvicorn.Config(app.build(service, measures, app.LOOPBACK), log_level="warning", lifespan="off")
    uvicorn_server = server._Server(config, started.set)
    service.worker.start()
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(30)
        yield Site(service, listener.getsockname()[1])
    finally:
        uvicorn_server.should_exit = True
        thread.join()
        service.worker.stop()
        listener.close()
