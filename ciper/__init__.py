"""Equivariant self-supervised learning: one encoder, two heads, nothing useful thrown away."""

__version__ = "0.1.0"

import lazy_loader as _lazy

DISTRIBUTION = "ciper-book"  # on the index; `ciper` there is another project
REPOSITORY = "https://github.com/ciper-book/ciper"


def pip_install(extra: str) -> str:
    """The command that installs an extra of this package."""
    return f'pip install "{DISTRIBUTION}[{extra}]"'


__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "augment": ["Augment", "Params"],
        "data": ["Factor", "ImageData", "split", "split_blocks"],
        "views": ["AugmentedViews", "Batch", "PartnerViews"],
        "datasets": ["load"],
        "models": ["Encoder", "predictor", "projector"],
        "losses": ["info_nce", "nt_xent", "predictive_loss"],
        "methods": ["CIPER", "ESSL", "METHODS", "Method", "Predictive", "SimCLR"],
        "train": ["Recipe", "Run", "export_run", "fit", "load_run", "recipe_at"],
        "probe": ["embed", "evaluate", "evaluate_view", "fit_linear", "knn_accuracy"],
        "explain": ["full_gradient", "map_2d", "neighbor_share", "saliency"],
        "results": ["Result", "load_results", "results_table", "save_result"],
        "demo": ["run_demo"],
    },
)
