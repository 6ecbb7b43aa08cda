"""Settings of Sphinx: `sphinx-build -W docs docs/_build` makes the pages.

The tutorial keeps the outputs of `jupyter execute --inplace docs/tutorial.ipynb`; a test runs its
cells, so the pages need not.
"""

import jaxcrop

project = "jaxcrop"
author = "The jaxcrop authors"
release = jaxcrop.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "jupyter_execute"]  # MyST-NB writes the second beside the first
html_theme = "furo"
html_title = "jaxcrop"

default_role = "code"
myst_heading_anchors = 3
nb_execution_mode = "off"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
