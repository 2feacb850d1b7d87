"""Link inline code to the API page, and make that page read well.

- `nt_xent`, `Augment.sample` or `ciper.training.losses` in the text becomes
  a link when it names exactly one object of the package.
"""

import inspect
import re
import typing

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

PACKAGE = "ciper"
CALL = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.S)
UNLINKED = (nodes.reference, nodes.title, nodes.field_name)


class LinkInlineCode(SphinxPostTransform):
    """Turn inline code that names one of the package's objects into a link."""

    default_priority = 5

    def run(self, **kwargs):
        objects = self.env.get_domain("py").objects
        module = PACKAGE + self.env.docname.removeprefix("nbs")
        names = _names(objects, _full_spellings)
        short = _names(objects, _short_spellings, module.replace("/", "."))
        names = short | names
        for node in list(self.document.findall(nodes.literal)):
            match = CALL.fullmatch(node.astext())
            found = match and names.get(match[1])
            if found and not _is_linked(node):
                page, anchor, title = found
                link = (self.env.docname, page, anchor, node.deepcopy(), title)
                node.replace_self(make_refnode(self.app.builder, *link))


def _names(objects, spellings, *where) -> dict[str, tuple[str, str, str]]:
    """What a text may say -> (page, anchor, full name), where one fits."""
    names = {}
    modules = [n for n, entry in objects.items() if entry.objtype == "module"]
    for full, entry in objects.items():
        if full.split(".")[0] == PACKAGE and not entry.aliased:
            homes = (m for m in modules if full.startswith(m + "."))
            home = max(homes, key=len, default="")
            for name in spellings(full, home, *where):
                target = (entry.docname, entry.node_id, full)
                names.setdefault(name, []).append(target)
    return {name: x[0] for name, x in names.items() if len(x) == 1}


def _full_spellings(full: str, home: str) -> list[str]:
    """In any text: `load`, `datasets.load`, `Augment.sample`."""
    if not home:
        return [full]
    name = full.removeprefix(home + ".")
    return [full, f"{PACKAGE}.{name}", f"{home.split('.')[-1]}.{name}", name]


def _short_spellings(full: str, home: str, module: str) -> list[str]:
    """In the chapter of `Augment`, `sample` can only be its method."""
    return [full.rsplit(".", 1)[1]] if home == module else []


def _is_linked(node) -> bool:
    if "xref" in node.get("classes", ()):
        return True
    while (node := node.parent) is not None:
        if isinstance(node, UNLINKED):
            return True
    return False


def markdown_docstring(app, what, name, obj, options, lines):
    """Docstrings are read as RST: give them the notebooks' code and maths."""
    text = "\n".join(lines)
    text = re.sub(r"(?<![`:\w])`([^`\n]+)`(?![`_])", r"``\1``", text)
    text = re.sub(r"(?m)^( *)\$\$(.+?)\$\$ *$", r"\n\1.. math:: \2\n", text)
    text = re.sub(r"(?<![\\$`])\$([^$\n]+)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def skip_noise(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, and other packages' classes."""
    doc = getattr(obj, "__doc__", None) or ""
    foreign = inspect.isclass(obj) and obj.__module__.split(".")[0] != PACKAGE
    if doc.startswith("Alias for field number") or foreign:
        return True


def plain_annotations(app, obj, bound_method):
    """Show `str` for `Annotated[str, Option(...)]`."""
    hints = getattr(obj, "__annotations__", {}).values()
    if any(typing.get_origin(hint) is typing.Annotated for hint in hints):
        obj.__annotations__ = typing.get_type_hints(obj)


def plain_defaults(app, what, name, obj, options, signature, returns):
    """Show `...` for a default that is made by a function."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app):
    """Register all, and have jaxtyping print `Float[Tensor, 'n d']`."""
    typing.GENERATING_DOCUMENTATION = True
    app.add_post_transform(LinkInlineCode)
    # before napoleon, which runs at the usual priority of 500
    app.connect("autodoc-process-docstring", markdown_docstring, priority=400)
    app.connect("autodoc-skip-member", skip_noise)
    app.connect("autodoc-before-process-signature", plain_annotations)
    app.connect("autodoc-process-signature", plain_defaults)
    return {
        "version": "1",
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
