"""Runs as they might have been measured."""

from benchmarks.record import DeviceRun, Entry, Parity, PhotoRow, Rates, SpeedRun
from benchmarks.setting import Machine, Setting

CPU = Machine(cpu="Some CPU", cores=2, threads=2, memory_gb=25.3, gpu=None)
GPU = Machine(cpu="Some CPU", cores=16, threads=16, memory_gb=128.0, gpu="Some GPU")
EXACT = Parity(exact=True, n_reference=30, n_ours=30, n_identical=29, min_iou=0.9995)
STAGES = {"encode": 0.5, "decode": 1.0, "measure": 0.3, "nms": 0.1, "rle": 0.05, "other": 0.05}


def setting(machine=CPU, model="nano", imgsz=448, device="cpu", weights_sha256="ab" * 32):
    return Setting(
        date="2026-11-21T08:00:00+00:00",
        commit="0123456",
        machine=machine,
        load=0.1,
        versions={"python": "3.11.7", "torch": "2.15.0"},
        model=model,
        weights_sha256=weights_sha256,
        imgsz=imgsz,
        device=device,
        overrides=("generator.points_per_side=32",),
    )


def photo(name, size_hw, times):
    entries = {
        "ours": Entry(seconds=2.0, peak_mb=1000.0, n_masks=30, n_found=30),
        "original": Entry(seconds=2.0 * times, peak_mb=1500.0, n_masks=30, n_found=30),
        "transformers": Entry(seconds=3.0 * times, peak_mb=2000.0, n_masks=28, n_found=27),
    }
    return PhotoRow(name, size_hw, entries, EXACT, STAGES)


def speed_run(**changes):
    return SpeedRun(
        setting=setting(**changes),
        repeats=3,
        peers=("original", "transformers"),
        reference="original",
        photos=(photo("small.jpg", (400, 500), 4.0), photo("large.jpg", (1500, 2000), 16.0)),
    )


SPEED_RUN = speed_run()
DEVICE_RUN = DeviceRun(
    setting=setting(GPU, "sam_vit_h", 1024, "cuda", None),
    image_hw=(1500, 2250),
    rates=Rates(
        images_per_s=2.0,
        encoder_images_per_s=9.0,
        decoder_prompts_per_s=3000.0,
        prompts_per_image=1024,
        weights_mb=2564.0,
        peak_mb=8000.0,
        n_masks=3,
    ),
    stages=STAGES,
    parity={"small.jpg": EXACT},
)
