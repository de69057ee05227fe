from tests.train.conftest import compilation_cache  # noqa: F401 (these tests, too, train one thing many times)
