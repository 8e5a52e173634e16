"""The page as an app of Gradio, on this machine."""

import html
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from .space import PAGE_FILE

# The page runs its own script and nothing else; it can't reach the app around it.
_FRAME = (
    '<iframe title="Gallery" src="/gradio_api/file={path}" sandbox="allow-scripts" '
    'style="width:100%;height:calc(100vh - 7rem);border:0;border-radius:8px"></iframe>'
)


def check_can_launch() -> None:
    """Refuse where Gradio is missing.

    Raises:
        ImportError: If it is.
    """
    if find_spec("gradio") is None:
        raise ImportError("The app needs gradio, which is not installed: pip install 'hf_lgm[gallery]'.")


def launch(page: str, title: str) -> None:
    """Show the page at an address of this machine until the process is stopped.

    Args:
        page (`str`): Of [`render_page`].
        title (`str`): Of the app.
    """
    check_can_launch()
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read at import
    import gradio  # here, since it is slow to load

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / PAGE_FILE
        path.write_text(page, encoding="utf-8")
        gradio.set_static_paths([path])
        with gradio.Blocks(title=title, analytics_enabled=False, fill_width=True) as app:
            gradio.HTML(_FRAME.format(path=html.escape(str(path))))
        app.launch(server_name="127.0.0.1", share=False)
