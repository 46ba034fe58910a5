"""The models of `tests.engines.loaded` for the tests of this room."""

from tests.engines.loaded import *  # noqa: F403  # its fixtures, as it lists them
