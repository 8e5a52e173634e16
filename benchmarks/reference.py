"""The paper's algorithm in plain PyTorch, as its authors run it: what the other benchmarks measure ours against.

A batch of real images is encoded in every step; the gradients that it and the synthetic views give a fresh random
probe come from automatic differentiation, one of them with a graph of its own for a second backward pass; the
backbone is in eval mode, and its weights ask for gradients. arXiv 2511.16674, section 3. Nothing here is used by the
package.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

_COLOUR = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])


class Reference:
    """Synthetic images, one pyramid each, and the step that improves them.

    Args:
        encode (`Callable`): From images (B, 3, size, size) in [0, 1] to features (B, D), weights not frozen.
        real (`torch.Tensor`): Shape (N, 3, side, side), 8-bit, on the device.
        labels (`torch.Tensor`): Shape (N,).
        size (`int`): Side of a view.
        images_per_class (`int`, *optional*, defaults to 1): Synthetic images of each class.
        views (`int`, *optional*, defaults to 10): Views of each image in each step.
        learning_rate (`float`, *optional*, defaults to 2e-3): Adam's.
        growth_steps (`float`, *optional*, defaults to 200): Steps between two pyramid levels.
        seed (`int`, *optional*, defaults to 0): Of everything that is random.
        cached (`torch.Tensor`, *optional*): Shape (N, D), features of all real images, to match in place of a batch's.
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        real: torch.Tensor,
        labels: torch.Tensor,
        size: int,
        images_per_class: int = 1,
        views: int = 10,
        learning_rate: float = 2e-3,
        growth_steps: float = 200,
        seed: int = 0,
        cached: torch.Tensor | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.encode, self.real, self.labels, self.size, self.cached = encode, real, labels, size, cached
        self.views, self.learning_rate, self.growth_steps = views, learning_rate, growth_steps
        self.classes = int(labels.max()) + 1
        self.y = torch.arange(self.classes, device=real.device).repeat_interleave(images_per_class)
        self.sides = [2**k for k in range(20) if 2**k < real.shape[-1]] + [real.shape[-1]]
        self.colour = (_COLOUR / _COLOUR.norm(dim=0).max()).to(real.device)
        self.levels: list[torch.Tensor] = []
        self.order = torch.empty(0, dtype=torch.long)
        self.steps = 0
        self._grow()

    def images(self) -> torch.Tensor:
        """The synthetic images, of shape (n, 3, side, side)."""
        side = self.sides[-1]
        total = sum(F.interpolate(level, size=(side, side), mode="bilinear") for level in self.levels)
        return torch.sigmoid(2 * torch.einsum("ij,njhw->nihw", self.colour, total))

    def step(self) -> torch.Tensor:
        """One update of the images; returns the loss."""
        if len(self.levels) < len(self.sides) and self.steps > len(self.levels) * self.growth_steps:
            self._grow()
        y = self.y.repeat_interleave(self.views)
        probe = self._probe()
        real = self._gradient(*self._real_features(len(y)), probe, False)
        images = self.images().repeat_interleave(self.views, dim=0)
        synthetic = self._gradient(self.encode(self._view(images)), y, probe, True)
        loss = 1 - F.cosine_similarity(synthetic, real, dim=0)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return loss.detach()

    def _probe(self) -> torch.nn.Linear:
        if not hasattr(self, "dim"):
            with torch.no_grad():
                self.dim = self.encode(self.real[:2, :, : self.size, : self.size].float() / 255).shape[1]
        probe = torch.nn.Linear(self.dim, self.classes, device=self.real.device)
        torch.nn.init.normal_(probe.weight, std=0.01)
        torch.nn.init.zeros_(probe.bias)
        return probe

    def _real_features(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of all real images, or of one view of each of a batch, with their labels."""
        if self.cached is not None:
            return self.cached, self.labels
        rows = self._next_rows(min(count, len(self.real)))
        return self.encode(self._view(self.real[rows].float() / 255)), self.labels[rows]

    def _gradient(self, z: torch.Tensor, y: torch.Tensor, probe: torch.nn.Linear, graph: bool) -> torch.Tensor:
        loss = F.cross_entropy(probe(z.float()), y)
        gradients = torch.autograd.grad(loss, [probe.weight, probe.bias], create_graph=graph)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def _view(self, images: torch.Tensor) -> torch.Tensor:
        """One random view of each: flip, resized crop with black beside the image, noise on half of them."""
        n, device = len(images), images.device
        area = torch.empty(n, device=device).uniform_(0.08, 1)
        ratio = torch.exp(torch.empty(n, device=device).uniform_(-1, 1) * torch.log(torch.tensor(4 / 3)).item())
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()  # not bounded by the image
        x, y = (torch.empty(2, n, device=device).uniform_(-1, 1) * (1 - torch.stack([width, height]))).unbind()
        width = width * (2 * torch.randint(2, (n,), device=device) - 1)
        zero = torch.zeros_like(x)
        affine = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
        grid = F.affine_grid(affine, (n, 3, self.size, self.size), align_corners=False)
        views = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
        noisy = (torch.rand(n, 1, 1, 1, device=device) < 0.5).float()
        return views + 0.2 * noisy * torch.randn_like(views)

    def _next_rows(self, count: int) -> torch.Tensor:
        """Rows of the next real batch: without replacement, the last incomplete one of an epoch dropped."""
        if len(self.order) < count:
            self.order = torch.randperm(len(self.real), device=self.real.device)
        rows, self.order = self.order[:count], self.order[count:]
        return rows

    def _grow(self) -> None:
        old, side = len(self.levels), self.sides[len(self.levels)]
        noise = torch.randn(len(self.y), 3, side, side, device=self.real.device)
        self.levels = [level.detach() * old / (old + 1) for level in self.levels] + [noise / (old + 1)]
        self.levels = [level.requires_grad_() for level in self.levels]
        self.optimizer = torch.optim.Adam(self.levels, lr=self.learning_rate)
