"""Small SAMs, ours and the oracles', and a web server whose faults a test can choose."""

import hashlib
import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

from torch import nn

from amg.models.families.sam import SAMModel
from amg.models.modules.image_encoder_vit import ImageEncoderViT
from amg.models.modules.mask_decoder import MaskDecoder
from amg.models.modules.prompt_encoder import PromptEncoder
from amg.models.modules.tiny_vit import TinyViT
from amg.models.modules.two_way_transformer import TwoWayTransformer

OUR_PARTS = SimpleNamespace(
    ImageEncoderViT=ImageEncoderViT,
    PromptEncoder=PromptEncoder,
    MaskDecoder=MaskDecoder,
    TwoWayTransformer=TwoWayTransformer,
)
SIZE_PX = 64
GRID = SIZE_PX // 16
CHANNELS, WIDTH, DEPTH, HEADS, WINDOW, MLP_DIM = 32, 24, 3, 2, 3, 40
DECODER_HEADS = 8  # as in all published models: no tensor tells them


def _assemble(parts, sam):
    """The same constructor calls for `segment_anything`'s classes and for ours."""
    return sam(
        parts.ImageEncoderViT(
            img_size=SIZE_PX,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            out_chans=CHANNELS,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=WINDOW,
            global_attn_indexes=(1,),
        ),
        parts.PromptEncoder(
            embed_dim=CHANNELS,
            image_embedding_size=(GRID, GRID),
            input_image_size=(SIZE_PX, SIZE_PX),
            mask_in_chans=16,
        ),
        parts.MaskDecoder(
            transformer_dim=CHANNELS,
            transformer=parts.TwoWayTransformer(
                depth=2, embedding_dim=CHANNELS, num_heads=DECODER_HEADS, mlp_dim=MLP_DIM
            ),
            iou_head_hidden_dim=CHANNELS,
        ),
    ).eval()


def our_sam():
    return _assemble(OUR_PARTS, SAMModel)


def original_sam():
    from segment_anything import modeling

    return _assemble(modeling, modeling.Sam)


def our_mobile_sam():
    """With buffers that are derived, and with batch norms' integer counters."""
    vit = our_sam()
    encoder = TinyViT(
        img_size=SIZE_PX,
        num_classes=3,
        embed_dims=(8, 8, 8, 8),
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        window_sizes=(2, 2, 2, 2),
    )
    return SAMModel(encoder, vit.prompt_encoder, vit.mask_decoder).eval()


def original_neck(width):
    """The neck of an image encoder of that width."""
    from segment_anything.modeling import ImageEncoderViT

    return ImageEncoderViT(embed_dim=width, depth=0, out_chans=CHANNELS).neck


def transformers_sam(**vision_options):
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    sizes = {
        "hidden_size": WIDTH,
        "mlp_dim": WIDTH * 4,
        "num_attention_heads": HEADS,
        "window_size": WINDOW,
    }
    vision = SamVisionConfig(
        output_channels=CHANNELS,
        num_hidden_layers=DEPTH,
        image_size=SIZE_PX,
        global_attn_indexes=[1],
        num_pos_feats=CHANNELS // 2,
        **(sizes | vision_options),
    )
    prompt = SamPromptEncoderConfig(hidden_size=CHANNELS, image_size=SIZE_PX)
    decoder = SamMaskDecoderConfig(
        hidden_size=CHANNELS,
        mlp_dim=MLP_DIM,
        num_attention_heads=DECODER_HEADS,
        iou_head_hidden_dim=CHANNELS,
        layer_norm_eps=1e-5,  # the original's; transformers' own default differs
    )
    return SamModel(
        SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    ).eval()


class FileServer:
    """Serves one file on loopback, over plain HTTP.

    `requests` holds the range each request asked for ("" without one). Faults: `ranges` (False: the
    header is ignored; "wrong": another part is sent), `cut_at` (byte offsets at which the next
    connections are cut), `statuses` (answers of the next requests), `pause_s` in mid-body.
    """

    def __init__(self, content):
        self.content = content
        self.requests = []
        self.ranges, self.cut_at, self.statuses, self.pause_s = True, [], [], 0.0
        self.location = ""
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.url = ""

    def answer(self, handler):
        asked = handler.headers.get("Range", "")
        self.requests.append(asked)
        if self.statuses:
            return self._refuse(handler, self.statuses.pop(0))
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0
        if start and start >= len(self.content):
            return self._refuse(handler, 416)
        if start and self.ranges == "wrong":
            start -= 1
        self._send(handler, start, bool(asked and self.ranges))
        return None

    def _refuse(self, handler, status):
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        if status == 416:
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
        if self.location:
            handler.send_header("Location", self.location)
        handler.end_headers()

    def _send(self, handler, start, is_range):
        handler.send_response(206 if is_range else 200)
        handler.send_header("Content-Length", str(len(self.content) - start))
        if is_range:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        handler.end_headers()
        end = self.cut_at.pop(0) if self.cut_at else len(self.content)
        middle = (start + end) // 2
        handler.wfile.write(self.content[start:middle])
        handler.wfile.flush()
        time.sleep(self.pause_s)
        handler.wfile.write(self.content[middle:end])
        handler.close_connection = True


@contextmanager
def serving(content):
    files = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            files.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *args: None  # clients that leave are part of the tests
    files.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
