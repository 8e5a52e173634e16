"""The paper's update of the images written out a second time, in float64, by automatic differentiation alone.

Of ours it takes the random numbers, which are functions of (seed, purpose, step, image), and no more.
"""

import torch
import torch.nn.functional as F
from views import written_out

from hf_lgm.randomness import seeded_generator

COLOUR = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
COLOUR = (COLOUR / COLOUR.norm(dim=0).max()).float().double()  # kept in float32, as are mean and std
MEAN, STD = (torch.tensor(x).double().view(1, 3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class Oracle:
    """One image per class: a batch of real views, a random probe, the gradients of both, one minus their cosine, Adam.

    Args:
        encode: From normalised images (B, 3, size, size) to features (B, D), in float64.
        real: Shape (N, 3, height, width), 8-bit; the shorter side is that of the synthetic images.
        labels: Shape (N,).
        size: Side of a view.
        views: Views of each synthetic image in each step.
        growth_steps: Steps between two levels, the first after one more.
        seed: Of the run.
    """

    def __init__(self, encode, real, labels, size, views, growth_steps, seed):
        self.encode, self.real, self.labels, self.size = encode, real.double() / 255, labels, size
        self.views, self.growth_steps, self.seed = views, growth_steps, seed
        self.classes, self.side = int(labels.max()) + 1, min(real.shape[2:])
        self.sides = [2**k for k in range(20) if 2**k < self.side] + [self.side]
        self.dim = encode(torch.zeros(1, 3, size, size, dtype=torch.float64)).shape[1]
        self.levels, self.steps = [], 0
        self.grow()

    def draw(self, purpose, *indices):
        return seeded_generator(self.seed, purpose, *indices)

    def grow(self):
        """A level more; Adam forgets."""
        old, side = len(self.levels), self.sides[len(self.levels)]
        generators = [self.draw("level", old, image) for image in range(self.classes)]
        noise = torch.stack([torch.randn(3, side, side, generator=g) for g in generators])
        levels = [level.detach() * old / (old + 1) for level in self.levels] + [noise.double() / (old + 1)]
        self.levels = [level.requires_grad_() for level in levels]
        self.optimizer = torch.optim.Adam(self.levels, lr=2e-3)

    def images(self):
        shape = (self.side, self.side)
        total = sum(F.interpolate(level, shape, mode="bilinear", align_corners=False) for level in self.levels)
        return torch.sigmoid(2 * torch.einsum("ij,njhw->nihw", COLOUR, total))

    def probe(self):
        W = 0.01 * torch.randn(self.classes, self.dim, generator=self.draw("probe", self.steps))
        return W.double().requires_grad_(), torch.zeros(self.classes, dtype=torch.float64).requires_grad_()

    def rows(self):
        """Of the real batch: without replacement, the incomplete one of an epoch dropped."""
        count = min(self.classes * self.views, len(self.real))
        epoch, batch = divmod(self.steps, len(self.real) // count)
        order = torch.randperm(len(self.real), generator=self.draw("order", epoch))
        return order[batch * count : (batch + 1) * count]

    def real_views(self):
        crops = []
        for row in self.rows().tolist():
            image = self.real[row]
            x, y = torch.rand(2, generator=self.draw("real crop", self.steps, row)).tolist()
            left, top = (int(u * (length - self.side + 1)) for u, length in ((x, image.shape[2]), (y, image.shape[1])))
            crops.append(image[:, top : top + self.side, left : left + self.side])
        return written_out(torch.stack(crops), self.rows().tolist(), 1, self.size, self.seed, self.steps, "real views")

    def synthetic_views(self):
        return written_out(self.images(), range(self.classes), self.views, self.size, self.seed, self.steps)

    def gradient(self, views, y, probe, create_graph):
        W, b = probe
        loss = F.cross_entropy(F.linear(self.encode((views - MEAN) / STD), W, b), y)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, probe, create_graph=create_graph)])

    def step(self):
        """One update; the loss, and the gradients on the levels."""
        probe, y = self.probe(), torch.arange(self.classes).repeat_interleave(self.views)
        wanted = self.gradient(self.real_views(), self.labels[self.rows()], probe, create_graph=False)
        found = self.gradient(self.synthetic_views(), y, probe, create_graph=True)
        loss = 1 - F.cosine_similarity(found, wanted, dim=0)
        self.optimizer.zero_grad()
        loss.backward()
        gradients = [level.grad.clone() for level in self.levels]
        self.optimizer.step()
        if self.steps and self.steps % self.growth_steps == 0 and len(self.levels) < len(self.sides):
            self.grow()
        self.steps += 1
        return loss.detach(), gradients
