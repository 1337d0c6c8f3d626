"""How the documentation is built: `make docs` writes it to docs/_build/html."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "opus-socket"
author = "the opus-socket authors"
release = version = version_of("opus-socket")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # our docstrings write `name`, as Markdown does

napoleon_use_ivar = True  # the attributes of a named tuple are described once

html_theme = "furo"
html_title = "opus-socket"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
