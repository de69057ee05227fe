"""One of several processes of `test_connect.py`: makes a mesh, says so, and computes along each group of its axes."""

import sys
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from recjax.parallel.mesh import MeshShape
from recjax.parallel.startup import initialize

initialize()
mesh = MeshShape(model=2).build()
print("mesh made", file=sys.stderr, flush=True)
for group in ("data", "model", ("data", "model")):
    along, whole = PartitionSpec(group), PartitionSpec()
    total = jax.shard_map(partial(jax.lax.psum, axis_name=group), mesh=mesh, in_specs=along, out_specs=whole)
    ones = jax.make_array_from_callback((4,), NamedSharding(mesh, along), lambda index: np.ones(4)[index])
    print("total", np.asarray(jax.jit(total)(ones).addressable_data(0)).tolist(), file=sys.stderr, flush=True)
