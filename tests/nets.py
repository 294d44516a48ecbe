"""Networks as an engineer has them: modules of their own, made by functions. Tests copy this file to where a user runs."""

from __future__ import annotations

from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """He et al. 2016 for CIFAR: every second pixel and channels of zeros where the shape changes."""

    def __init__(self, wide, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(wide, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.more = stride, (out - wide) // 2

    def forward(self, x):
        found = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        near = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return functional.relu(found + near)


class ResNet(nn.Module):
    def __init__(self, deep, wide=16, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, wide, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.layer1 = nn.Sequential(*[Block(wide, wide, 1) for _ in range(deep)])
        for number, out in enumerate((2 * wide, 4 * wide), 2):
            blocks = [Block(out // 2 if place == 0 else out, out, 2 if place == 0 else 1) for place in range(deep)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(4 * wide, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


def small():
    return ResNet(2, 8)


def resnet20():
    return ResNet(3)


def resnet56():
    return ResNet(9)


def plain():
    """A chain of single layers, as VGG is."""
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(8 * 4 * 4, 4))


class Wrapped(nn.Module):
    """All in one part, with a classifier of several layers."""

    def __init__(self):
        super().__init__()
        self.body = small()
        self.body.linear = nn.Identity()
        self.classifier = nn.Sequential(nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 5, bias=False))

    def forward(self, x):
        return self.classifier(self.body(x))


def soft():
    return nn.Sequential(plain(), nn.Softmax(dim=1))


def maps():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))


def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x):
            return self.linear(x.mean(dim=(2, 3))), x

    return Pair()


def needs(size):
    return plain()


def number():
    return 3


def headless():
    """What gives vectors already."""
    network = small()
    network.linear = nn.Identity()
    return network


class Unit(nn.Module):
    """What ends in vectors of length 1, as networks for faces do."""

    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return functional.normalize(self.body(x), dim=1)


class Necked(nn.Module):
    """With a normalisation behind its last linear layer, as many networks for faces have it."""

    def __init__(self):
        super().__init__()
        self.body = small()
        self.neck = nn.BatchNorm1d(10)

    def forward(self, x):
        return self.neck(self.body(x))


class Squeezing(nn.Module):
    """Its linear layers weigh channels, and what it ends in are means."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 8), nn.Conv2d(8, 12, 3, 2, 1)

    def forward(self, x):
        x = functional.relu(self.first(x))
        x = x * self.gate(x.mean(dim=(2, 3))).sigmoid()[..., None, None]
        return self.last(x).mean(dim=(2, 3))


class Widening(nn.Module):
    """What follows its last linear layer wants as many numbers as that gives."""

    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return self.body(x).reshape(-1, 5, 2).mean(dim=2)


class Twice(nn.Module):
    """A part of it stands under two names."""

    def __init__(self):
        super().__init__()
        self.body = small()
        self.again = self.body.layer1

    def forward(self, x):
        return self.body(x)
