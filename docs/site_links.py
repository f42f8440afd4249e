"""A hook of MkDocs: links from the tutorial lead to pages of the site, as those of other pages do.

mkdocs-jupyter leaves them as they are in the notebook, where they lead to Markdown.
"""

import re

from mkdocs.structure.pages import Page


def on_post_page(output: str, page: Page, config: object) -> str:
    """Return a page's HTML, in which a notebook's links to Markdown lead to what is made of it."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    return re.sub(r'href="([\w/-]+)\.md(?=["#])', r'href="\1.html', output)
