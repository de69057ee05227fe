"""Processes connect when the mesh is made, where they wait for each other as long as recjax says."""

from pathlib import Path

from tests.multi_process.launch import launch

PROGRAM = Path(__file__).with_name("connect_program.py")


def test_nothing_is_left_to_connect_when_the_mesh_is_there():
    """XLA gives up a connection after 30 s: one that a process first needs after a long compilation is lost."""
    for output in launch(PROGRAM, 2, devices=2):
        before, _, after = output.partition("mesh made")
        assert "[Gloo] Rank" in before
        assert "[Gloo] Rank" not in after and after.count("total") == 3
