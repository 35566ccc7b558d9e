"""What a step minimises: the model's answers to all questions of a batch, beside what is meant."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from amg.models.families.fine_sam import FineSAMModel
from amg.models.modules.fine_encoder import FineFeatures
from pipelines.train.depthwise import QuickDepthwise
from pipelines.train.losses import certain_mask_loss, mask_and_score_loss, pairwise_iou
from pipelines.train.prompts import TrainingBatch
from pipelines.train.questions import Questions, first_questions, meant_levels, second_questions

_BOX_SHARE, _SECOND_SHARE = 0.4, 0.4  # of the loss, beside that of single points
_Function = TypeVar("_Function", bound=Callable[..., object])


class Objective:
    """The loss of a model on batches of scenes, and its gradients."""

    def __init__(self, model: FineSAMModel, compile: bool) -> None:
        self._model = model
        self._answer = _compiled(self._answer_plainly, compile)
        self._mask_loss = _compiled(mask_and_score_loss, compile)
        self._certain_loss = _compiled(certain_mask_loss, compile)

    def backward(self, batch: TrainingBatch, balance: torch.Tensor) -> dict[str, torch.Tensor]:
        """Add a batch's gradients to the parameters'; gives the loss and what is worth a log.

        The encoder sees all images together. The questions go image by image on a CPU, whose caches
        hold one image's; their gradients are gathered at the features.
        """
        features = self._encode(batch)
        met = [maps.detach().requires_grad_() for maps in features]
        n_images = len(batch.images)
        n_at_once = 1 if batch.images.device.type == "cpu" else n_images
        logs: list[dict[str, torch.Tensor]] = []
        for first in range(0, n_images, n_at_once):
            some = slice(first, first + n_at_once)
            seen = FineFeatures(*(maps[some] for maps in met))
            loss, log = self.loss(seen, batch.images_of(some), balance)
            (loss * n_at_once / n_images).backward()
            logs.append({"loss": loss.detach(), **log})
        torch.autograd.backward(features, [maps.grad for maps in met])
        return {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]}

    def loss(
        self, features: FineFeatures, batch: TrainingBatch, balance: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of all questions about a batch's images, and what is worth a log.

        A point asks for masks of its three regions; a box for the region that it is around.
        As many points as boxes, and the boxes, are asked again.
        """
        n_images, n_points, _ = batch.points_xy.shape
        n_boxes = batch.boxes_xyxy.shape[1]
        first = first_questions(batch.points_xy, batch.boxes_xyxy)
        logits, scores = self._answer(features, first)
        targets = batch.targets()
        places = torch.arange(len(logits), device=logits.device).view(n_images, -1)
        points, boxes = (x.flatten() for x in places.split([n_points, n_boxes], dim=1))
        again = torch.cat([places[:, :n_boxes], places[:, n_points:]], dim=1).flatten()

        loss, log = self._mask_loss(logits[points], scores[points], targets[points], balance)
        if not n_boxes:
            return loss, log
        box_loss, box_iou = self._certain_loss(
            logits[boxes], scores[boxes], targets[boxes, batch.levels.flatten()], balance
        )
        # The mask that would be shown: of three, the one that the model thinks best of.
        shown = 1 + scores[:, 1:].argmax(1)
        shown[boxes] = 0
        answers = logits[again, shown[again]].detach()
        level = meant_levels(pairwise_iou(answers.unsqueeze(1), targets[again]).squeeze(1))
        level.view(n_images, -1)[:, n_boxes:] = batch.levels
        meant = targets[again, level]
        logits, scores = self._answer(features, second_questions(first, again, answers, meant))
        second_loss, second_iou = self._certain_loss(logits, scores, meant, balance)
        loss = loss + _BOX_SHARE * box_loss + _SECOND_SHARE * second_loss
        return loss, {**log, "iou_box": box_iou.mean(), "iou_second": second_iou.mean()}

    def _encode(self, batch: TrainingBatch) -> FineFeatures:
        images = batch.images.permute(0, 3, 1, 2)
        pixels = (images - self._model.pixel_mean) / self._model.pixel_std
        quick = QuickDepthwise() if pixels.device.type == "cpu" else nullcontext()
        with _half_precision(pixels.device), quick:
            features: FineFeatures = self._model.image_encoder(
                pixels.contiguous(memory_format=torch.channels_last)
            )
        return features

    def _answer_plainly(
        self, features: FineFeatures, questions: Questions
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All four masks of N questions about B images, N / B about each, in turn.

        Gives logits (N, 4, n_cells) and scores (N, 4), in float32.
        """
        prompt_encoder, decoder = self._model.prompt_encoder, self._model.mask_decoder
        n_each = len(questions.coords) // len(features.embedding)
        with _half_precision(features.embedding.device):
            if len(features.embedding) > 1:  # a single image is broadcast
                features = FineFeatures(*(x.repeat_interleave(n_each, dim=0) for x in features))
            embedding, *high_res = features
            sparse = prompt_encoder.embed_points(questions.coords, questions.kinds)
            dense = prompt_encoder.no_mask_dense()
            if questions.masks is not None and questions.has_mask is not None:
                has_mask = questions.has_mask[:, None, None, None]
                masks = questions.masks.view(len(has_mask), 1, *high_res[0].shape[2:])
                dense = torch.where(has_mask, prompt_encoder.dense(masks), dense)
            decoded = decoder.attend(embedding, prompt_encoder.get_dense_pe(), sparse, dense)
            upscaled = decoder.upscale(decoded.pixels, high_res)
            logits = decoder.predict_all(upscaled, decoded.mask_tokens)
        return logits.flatten(2).float(), decoded.predicted_iou.float()


@contextmanager
def _half_precision(device: torch.device) -> Iterator[None]:
    """Run the model in bfloat16; losses stay in float32, outside."""
    # The fused CPU attention is slow backwards for heads this small.
    attention = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, torch.bfloat16), attention:
        yield


def _compiled(function: _Function, wanted: bool) -> _Function:
    return cast(_Function, torch.compile(function, dynamic=False)) if wanted else function
