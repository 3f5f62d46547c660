"""Object detection: YOLOv3 on PASCAL VOC, RetinaNet on COCO; judged by mean average precision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor, nn

from glideslope.tasks.data import DataFile
from glideslope.tasks.detection.augmentation import mirrored_with_boxes, moved_with_boxes, recoloured
from glideslope.tasks.detection.mean_average_precision import coco_mean_average_precision, voc_mean_average_precision
from glideslope.tasks.detection.retinanet import (
    RetinaNet,
    anchors,
    resnet50_trunk,
    retinanet_detections,
    retinanet_losses,
)
from glideslope.tasks.detection.sets import COCO, NUM_COCO_CLASSES, VOC, VOC_CLASSES, detection_splits
from glideslope.tasks.detection.trunk import load_trunk, trunk_sha256
from glideslope.tasks.detection.yolo import Cells, YOLOv3, yolo_detections, yolo_losses
from glideslope.tasks.imagenet import MEAN, STD
from glideslope.tasks.models import Standardise
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

LARGEST_MOVE = 0.2
"""Of each edge of what is seen, in shares of the picture's sides."""
LARGEST_FACTOR = 1.5
"""Of saturation and exposure, and of their inverses."""


class Detection(Task):
    """Pictures with boxes: (batch, 3, side, side) in [0, 1], and truths, (batch, most, 6), as in `boxes`.

    Whole pictures are squeezed into squares. Difficult boxes and crowds are not learned, and count neither way.

    Class attributes:
        file: the data.
        side: of the squares, in pixels.
    """

    file: ClassVar[DataFile]
    side: ClassVar[int]
    evaluation_batch: ClassVar[int] = 16
    whole_epochs: ClassVar[bool] = True
    pretrained: str

    @final
    def splits(self) -> Splits:
        return detection_splits(self.file, self.side)

    @final
    def pretrained_sha256(self) -> str:
        return trunk_sha256(self.pretrained) if self.pretrained else ""

    def shown(self, images: Tensor, truth: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Pictures and truths as they are in training."""
        return mirrored_with_boxes(images, truth, noise["flip"])

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "flip": mirrored or not, (num_samples,)."""
        return {"flip": generator.random(num_samples) < 0.5}

    @abstractmethod
    def losses(self, predicted: Tensor, truth: Tensor, images: Tensor) -> Tensor:
        """Each picture's loss, (batch,), of what the model predicts in float32."""

    @abstractmethod
    def found(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Detections, (batch, 100, 6), of what the model predicts in float32."""

    @final
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        images, truth = batch
        images, truth = self.shown(images, truth, noise)
        return self.losses(model(images).float(), truth, images).mean()

    @final
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss", (batch,); "detections", (batch, 100, 6); "truth", (batch, most, 6)."""
        images, truth = batch
        predicted = model(images).float()
        return {
            "loss": self.losses(predicted, truth, images),
            "detections": self.found(predicted, images),
            "truth": truth,
        }


@final
@dataclass(frozen=True)
class VOCYOLOv3(Detection):
    """YOLOv3 (61,626,049 parameters) on PASCAL VOC: trained on 2007 and 2012, tested on 2007.

    14,896 pictures to train on, 1,655 to choose rates by: the 16,551 of both years for training and validation, of
    which a tenth is held out; the 4,952 of the test set of 2007 to report on. Judged by the area below precision over
    recall at an overlap of 1/2, and not at eleven recalls, which the paper leaves open.

    In training each edge of a picture is moved by up to a fifth of the picture's side, saturation and exposure change
    by a factor of up to 1.5, and half of the pictures are mirrored, as YOLO's authors do it; all batches are of one
    size, where theirs are of many.

    The paper warms up for 2 epochs, from 1e-5 to 1e-4, before its 50 epochs begin. That is for the plan to say, as in
    `plan(lr=relative(rex), preamble=preamble(2ep, 1e-05, 0.0001))`, at the rate 1e-4. Batch size, size of the input and
    augmentation are not given there; these are ours, as is the rate for SGD, that of the detector's own code.

    Args:
        pretrained: name of a file in the data folder, safetensors, with the weights of Darknet-53, named as
            `darknet53().state_dict()` has them: usually trained on ImageNet, as detectors' trunks are. Without it, ""
            and the default, all weights are drawn, and 50 epochs reach less.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022; Redmon,
        Farhadi, "YOLOv3: An Incremental Improvement", 2018; for the augmentation Redmon, Divvala, Girshick, Farhadi,
        "You Only Look Once: Unified, Real-Time Object Detection", CVPR 2016, Section 2.2.
    """

    name: ClassVar[str] = "voc-yolov3"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "PASCAL VOC 2007 and 2012 (Everingham et al., 2010)"
    needs: ClassVar[str | None] = VOC.name
    file: ClassVar[DataFile] = VOC
    side: ClassVar[int] = 416
    maximum_epochs: ClassVar[int] = 50
    batch_size: ClassVar[int] = 16
    metric: ClassVar[Metric] = Metric("mAP", higher_is_better=True, unit="%", over_split=voc_mean_average_precision)
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.001),
        "adam": Default(0.0001),
        "adamw": Default(0.0001),
    }

    pretrained: str = ""

    def model(self, seed: int) -> nn.Module:
        model = seeded_model(seed, lambda: YOLOv3(len(VOC_CLASSES)))
        if self.pretrained:
            load_trunk(model.get_submodule("trunk"), self.pretrained)
        return model

    def shown(self, images: Tensor, truth: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        images, truth = super().shown(*moved_with_boxes(images, truth, noise["edges"]), noise)
        return recoloured(images, noise["saturation"], noise["exposure"]), truth

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "flip": mirrored or not, (num_samples,); "edges": see `moved_with_boxes`, (num_samples, 4); "saturation" and
        "exposure": factors, (num_samples,).
        """
        edges = generator.uniform(-LARGEST_MOVE, LARGEST_MOVE, (num_samples, 4))
        largest = np.log(LARGEST_FACTOR)
        factors = np.exp(generator.uniform(-largest, largest, (2, num_samples)))
        return {
            **super().augmentation(generator, num_samples),
            "edges": edges.astype(np.float32),
            "saturation": factors[0].astype(np.float32),
            "exposure": factors[1].astype(np.float32),
        }

    def losses(self, predicted: Tensor, truth: Tensor, images: Tensor) -> Tensor:
        return yolo_losses(predicted, truth, Cells.of(images))

    def found(self, predicted: Tensor, images: Tensor) -> Tensor:
        return yolo_detections(predicted, Cells.of(images))


@final
@dataclass(frozen=True)
class COCORetinaNet(Detection):
    """RetinaNet with a pyramid over ResNet-50 (37,968,692 parameters) on COCO 2017, at 256 x 256 pixels.

    113,287 pictures to train on, 5,000 to choose rates by: the published training set; the published 5,000 for
    validation to report on. Half of the pictures are mirrored in training.

    The paper trains for 45,000 steps. Batch (32) and size of the pictures are those of its code, where those steps are
    30 pieces of 1,500; here 13 epochs of 3,540 updates, 46,020, come nearest to them. There pictures keep their
    proportions and are padded; here they are squeezed. Batch normalisation is trained, as there. The weight decay of
    1e-4, there that of the pyramid and the towers, belongs to the optimizer: enter it as `sgdm(weight_decay=1e-4)`.

    Args:
        pretrained: name of a file in the data folder, safetensors, with the weights of ResNet-50 trained on ImageNet,
            which the paper's code starts from, named as `resnet50_trunk().state_dict()` has them. Without it, "" and
            the default, all weights are drawn, and so few updates reach much less.

    Source: Dong, Tan, Potter, Tsai, Kumar, Saripalli, "To Raise or Not To Raise: The Autonomous Learning Rate
        Question", 2021, Section 4; Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV
        2017.
    """

    name: ClassVar[str] = "coco-retinanet"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "COCO 2017 (Lin et al., 2014)"
    needs: ClassVar[str | None] = COCO.name
    file: ClassVar[DataFile] = COCO
    side: ClassVar[int] = 256
    maximum_epochs: ClassVar[int] = 13
    batch_size: ClassVar[int] = 32
    metric: ClassVar[Metric] = Metric("mAP", higher_is_better=True, unit="%", over_split=coco_mean_average_precision)
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.01),
        "adam": Default(0.0001),
        "adamw": Default(0.0001),
    }

    pretrained: str = ""

    def model(self, seed: int) -> nn.Module:
        detector = seeded_model(seed, lambda: RetinaNet(NUM_COCO_CLASSES, resnet50_trunk()))
        if self.pretrained:
            load_trunk(detector.get_submodule("trunk"), self.pretrained)
        return nn.Sequential(Standardise(MEAN, STD), detector)

    def losses(self, predicted: Tensor, truth: Tensor, images: Tensor) -> Tensor:
        return retinanet_losses(predicted, truth, anchors(images))

    def found(self, predicted: Tensor, images: Tensor) -> Tensor:
        return retinanet_detections(predicted, anchors(images))
