"""Where the images of a set lie among real ones: two dimensions of the features, and distances in all of them."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from ..features.coresets import class_means, distances
from ..randomness import seeded_generator
from ..settings import Projection

# Real images that are drawn; more of them hide each other.
MAX_POINTS = 5000


@dataclass(frozen=True)
class ProjectedFeatures:
    """Features of real and synthetic images in two dimensions.

    Args:
        method (`str`): `pca` or `umap`.
        real (`torch.Tensor`): Shape (N, 2).
        real_labels (`torch.Tensor`): Shape (N,), their classes.
        synthetic (`torch.Tensor`): Shape (n, 2).
        synthetic_labels (`torch.Tensor`): Shape (n,).
        explained (`list[float]`): Shares of the variance of real features in the two dimensions; empty for UMAP.
        nearest_is_own (`torch.Tensor`): Shape (n,), whether the class mean of real features that is nearest to a
            synthetic image is that of its class.
        relative_distance (`torch.Tensor`): Shape (n,), its distance to the mean of its class, in units of the mean
            distance of real images of this class.
    """

    method: str
    real: torch.Tensor
    real_labels: torch.Tensor
    synthetic: torch.Tensor
    synthetic_labels: torch.Tensor
    explained: list[float]
    nearest_is_own: torch.Tensor
    relative_distance: torch.Tensor

    def to_dict(self, class_names: list[str]) -> dict[str, Any]:
        """For JSON."""
        images = zip(
            self.synthetic_labels.tolist(),
            self.synthetic.double().tolist(),
            self.nearest_is_own.tolist(),
            self.relative_distance.tolist(),
            strict=True,
        )
        return {
            "method": self.method,
            "explained_variance": [round(share, 4) for share in self.explained],
            "real_images": len(self.real),
            "synthetic_images": [
                {
                    "class": class_names[label],
                    "at": [round(value, 4) for value in at],
                    "nearest_class_mean_is_own": is_own,
                    "relative_distance": round(distance, 4),
                }
                for label, at, is_own, distance in images
            ],
        }


def check_projection(method: str) -> None:
    """Refuse what can't be computed here.

    Raises:
        ImportError: If UMAP is asked for and not installed.
    """
    if method == "umap" and find_spec("umap") is None:
        raise ImportError("projection='umap' needs a package that is not installed: pip install 'hf_lgm[umap]'.")


def project(
    z: torch.Tensor,
    y: torch.Tensor,
    z_set: torch.Tensor,
    y_set: torch.Tensor,
    method: Projection = "pca",
    max_points: int = MAX_POINTS,
) -> ProjectedFeatures:
    """Fit two dimensions to real features, and find the synthetic ones in them.

    Args:
        z (`torch.Tensor`): Shape (N, D), features of real images.
        y (`torch.Tensor`): Shape (N,), their classes.
        z_set (`torch.Tensor`): Shape (n, D), features of the set's images.
        y_set (`torch.Tensor`): Shape (n,).
        method (`str`, *optional*, defaults to `"pca"`): Or `"umap"`.
        max_points (`int`, *optional*, defaults to 5000): Real images that are kept, drawn at random; UMAP is fitted to
            these alone.
    """
    check_projection(method)
    z, y, z_set, y_set = z.float().cpu(), y.cpu(), z_set.float().cpu(), y_set.cpu()
    drawn = torch.randperm(len(z), generator=seeded_generator(0, "projected images"))[:max_points].sort().values
    explained: list[float] = []
    if method == "pca":
        from sklearn.decomposition import PCA  # here, since it is slow to load

        pca = PCA(2, svd_solver="full").fit(z.double().numpy())
        explained = pca.explained_variance_ratio_.tolist()
        real, synthetic = pca.transform(z[drawn].double().numpy()), pca.transform(z_set.double().numpy())
    else:
        from umap import UMAP

        reducer = UMAP(n_neighbors=min(15, len(drawn) - 1), random_state=0, n_jobs=1).fit(z[drawn].numpy())
        real, synthetic = reducer.embedding_, reducer.transform(z_set.numpy())
    return ProjectedFeatures(
        method,
        torch.as_tensor(real),
        y[drawn],
        torch.as_tensor(synthetic),
        y_set,
        explained,
        *_distances(z, y, z_set, y_set),
    )


def _distances(
    z: torch.Tensor, y: torch.Tensor, z_set: torch.Tensor, y_set: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the own class mean is the nearest, and how far it is; NaN for a class without real images."""
    num_classes = int(torch.cat([y, y_set]).max()) + 1
    means = class_means(z, y, num_classes)
    away = distances(z_set, means)
    own = away[torch.arange(len(z_set)), y_set]
    spread = z.new_zeros(num_classes).index_add_(0, y, (z - means[y]).norm(dim=1)) / torch.bincount(
        y, minlength=num_classes
    )
    return away.nan_to_num(torch.inf).argmin(dim=1) == y_set, own / spread[y_set]
