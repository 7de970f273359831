"""Tests of the protocol run in virtual time."""

from tests.virtual_time import pytest_asyncio_loop_factories as pytest_asyncio_loop_factories
