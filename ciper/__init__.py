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
        "augment.chain": ["Augment", "Params"],
        "data.images": ["Factor", "ImageData", "split", "split_blocks"],
        "data.sources": ["AugmentedViews", "Batch", "PartnerViews"],
        "data.datasets": ["load"],
        "training.encoders": ["Encoder", "predictor", "projector"],
        "training.losses": ["info_nce", "nt_xent", "predictive_loss"],
        "training.methods.base": ["Method"],
        "training.methods.simclr": ["SimCLR"],
        "training.methods.predictive": ["Predictive"],
        "training.methods.ciper": ["CIPER"],
        "training.methods.essl": ["ESSL"],
        "training.methods.registry": ["METHODS"],
        "training.trainer": ["Recipe", "Run", "export_run", "fit", "load_run", "recipe_at"],
        "evaluation.probes": ["embed", "evaluate", "evaluate_view", "fit_linear", "knn_accuracy"],
        "evaluation.frozen": ["as_frozen", "load_encoder"],
        "evaluation.cards": ["Audit", "draw_card"],
        "evaluation.audit": ["audit", "audit_layers"],
        "evaluation.explain": ["full_gradient", "map_2d", "neighbor_share", "saliency"],
        "reproduce.results": ["Result", "load_results", "results_table", "save_result"],
        "reproduce.demo": ["run_demo"],
    },
)
