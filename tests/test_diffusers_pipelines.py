"""Stock diffusers pipelines, run end to end with PlanScheduler and with their own schedulers."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, UNet2DConditionModel, UNet2DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

import longstride as ls
from longstride.compat.diffusers import PlanScheduler
from longstride.models.data import load_images
from test_diffusers import drive

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
NFE = 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


# A network trained on the digits, for less than half a minute.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a DDPMPipeline, as save_pretrained wrote it."""
    data, folder = load_images("digits", "train").x, tmp_path_factory.mktemp("digits")
    scheduler = diffusers.DDPMScheduler(clip_sample=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16, 32),
            norm_num_groups=8, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            add_attention=False,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
        slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 250)
        for _ in range(250):
            x, t = data[torch.randint(len(data), (64,))], torch.randint(1000, (64,))
            noise = torch.randn_like(x)
            loss = F.mse_loss(net(scheduler.add_noise(x, noise, t), t).sample, noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            slower.step()
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(folder)
    return folder


def images(pipe: Any, n: int = 16, nfe: int = NFE, **call: Any) -> Tensor:
    """[n, 1, 8, 8] in [0, 1], clamped there as pipelines do."""
    out = pipe(batch_size=n, generator=seeded(), num_inference_steps=nfe, output_type="np", **call).images
    return torch.from_numpy(out).movedim(-1, 1)


def test_a_stock_pipeline_draws_what_the_converged_one_draws(trained: Path) -> None:
    """From the same noise and in as many evaluations, ours ends nearer to the converged solution."""
    model = ls.load(trained)
    assert model.shape == (1, 8, 8)
    truth = ls.reference(model, torch.randn(16, 1, 8, 8, generator=seeded()), nfe=200)
    truth = truth.div(2).add(0.5).clamp(0, 1)
    pipe = quiet(diffusers.DDIMPipeline.from_pretrained(trained))
    source, far = pipe.scheduler.config, []
    for spacing in ("leading", "linspace", "trailing"):
        pipe.scheduler = diffusers.DDIMScheduler.from_config(source, timestep_spacing=spacing)
        far.append(rms(images(pipe) - truth))
    pipe.scheduler = PlanScheduler.from_config(source, method="unipc_2", timestep_spacing="trailing")
    assert rms(images(pipe) - truth) < 0.5 * min(far)
    mean = load_images("digits", "train").x.mean(0).flatten()
    drawn = images(pipe, 64).mean(0).flatten()
    assert torch.corrcoef(torch.stack([drawn, mean]))[0, 1] > 0.9


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_load_gives_what_the_pipeline_runs(trained: Path) -> None:
    """Of the pipeline's folder and of its network's: the same samples as in the pipeline, to float32."""
    pipe = quiet(diffusers.DDIMPipeline.from_pretrained(trained))
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method="unipc_2", grid="karras")
    x = torch.randn(4, 1, 8, 8, generator=seeded())
    for folder in (trained, trained / "unet"):
        out = ls.sample(ls.load(folder), x_init=x, method="unipc_2", nfe=NFE, grid="karras")
        assert torch.allclose(out.div(2).add(0.5).clamp(0, 1), images(pipe, 4), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        ("EDMEulerScheduler", {"prediction_type": "v_prediction"}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "beta_schedule": "scaled_linear"}),
    ],
)
def test_load_knows_every_kind_of_network(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Its times, its scale of x and its sign are those that PlanScheduler gives it."""
    torch.manual_seed(0)
    net = UNet2DModel(8, 1, 1, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                      down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
    net.save_pretrained(tmp_path)
    getattr(diffusers, name)(**settings).save_pretrained(tmp_path)
    scheduler = PlanScheduler.from_pretrained(tmp_path)
    scheduler.set_timesteps(6)
    x = torch.randn(2, 1, 8, 8, generator=seeded()) * scheduler.init_noise_sigma
    with torch.no_grad():
        want = drive(scheduler, lambda y, t: net(y, t).sample, x)
    model, times = ls.load(tmp_path), scheduler._given.times
    assert torch.allclose(ls.sample(model, x_init=x, method="dpmpp_2m", grid=times), want, atol=1e-4)


def test_noise_of_a_pipeline_belongs_to_the_sample(trained: Path) -> None:
    pipe = quiet(diffusers.DDPMPipeline.from_pretrained(trained))
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method="ddpm")
    assert torch.allclose(images(pipe, 4)[:2], images(pipe, 2), atol=1e-4)


def test_a_pipeline_saves_and_loads_its_plan(trained: Path, tmp_path: Path) -> None:
    pipe = quiet(diffusers.DDPMPipeline.from_pretrained(trained))
    process = ls.load(trained).process
    plan = ls.plan_sampling(process, "dpmpp_2s", 6, "log_snr")
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, plan=plan)
    pipe.save_pretrained(tmp_path)
    again = quiet(diffusers.DDPMPipeline.from_pretrained(tmp_path))
    assert isinstance(again.scheduler, PlanScheduler)
    assert torch.equal(images(pipe, 4, 6), images(again, 4, 6))
    assert ls.load(tmp_path).process == process  # a saved PlanScheduler says as much of its network


def test_one_graph_of_the_network_serves_a_run(trained: Path) -> None:
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    pipe = quiet(diffusers.DDPMPipeline.from_pretrained(trained))
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method="heun")
    plain = images(pipe, 2)
    pipe.unet.forward = torch.compile(pipe.unet.forward, backend=backend, fullgraph=True)
    assert torch.allclose(images(pipe, 2), plain, atol=1e-5)
    assert len(graphs) == 1


def test_folders_that_are_no_model_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ls.ArgumentError, match="holds no diffusers model"):
        ls.load(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "PriorTransformer"}')
    (tmp_path / "scheduler_config.json").write_text((trained / "scheduler/scheduler_config.json").read_text())
    with pytest.raises(ls.ArgumentError, match="how a PriorTransformer is called"):
        ls.load(tmp_path)
    inpainting = {"_class_name": "UNet2DModel", "in_channels": 9, "out_channels": 4}
    (tmp_path / "config.json").write_text(str(inpainting).replace("'", '"'))
    with pytest.raises(ls.ArgumentError, match="9 channels and returns 4"):
        ls.load(tmp_path)


# Stable Diffusion and Flux in small, with random weights.


def stable_diffusion() -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(4, 8), norm_num_groups=2, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                       num_attention_heads=2, max_position_embeddings=8)
    )  # fmt: skip
    scheduler = diffusers.PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    )
    pipe = diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=text, tokenizer=None, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    with torch.no_grad():
        prompts, empty = (text(torch.randint(50, (1, 8)))[0] for _ in "12")
    call = {"prompt_embeds": prompts, "negative_prompt_embeds": empty, "height": 16, "width": 16}
    return quiet(pipe), call


def flux() -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=1, latent_channels=1, shift_factor=0.06,
                        scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)  # fmt: skip
    pipe = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        transformer=transformer, vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None,
    )  # fmt: skip
    call = {
        "prompt_embeds": torch.randn(1, 4, 32),
        "pooled_prompt_embeds": torch.randn(1, 32),
        "height": 8,
        "width": 8,
    }
    return quiet(pipe), call


def latents(pipe: Any, call: dict[str, Any], **more: Any) -> Tensor:
    """What the pipeline's loop ends with, and the evaluations that it made."""
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    calls: list[int] = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    try:
        out = pipe(
            **{"num_inference_steps": NFE, **call, **more}, generator=seeded(), output_type="latent"
        ).images
    finally:
        hook.remove()
    assert torch.isfinite(out).all()
    assert len(calls) == len(pipe.scheduler.timesteps) or "strength" in more
    return out


@pytest.mark.parametrize("build", [stable_diffusion, flux])
@pytest.mark.parametrize("method", ["dpmpp_2m", "unipc_3", "heun", "krogstad", "dpmpp_2m_sde"])
def test_big_pipelines_run_with_any_method_and_num_inference_steps_is_nfe(build: Any, method: str) -> None:
    pipe, call = build()
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method=method)
    latents(pipe, call)
    assert len(pipe.scheduler.timesteps) == NFE
    image = pipe(**call, num_inference_steps=3, generator=seeded(), output_type="np").images
    assert image.shape[-1] == 3


def test_stable_diffusion_agrees_with_its_schedulers() -> None:
    pipe, call = stable_diffusion()
    source = pipe.scheduler.config
    for name, method in (("DDIMScheduler", "ddim"), ("EulerDiscreteScheduler", "euler")):
        settings = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "leading"}
        known = inspect.signature(getattr(diffusers, name)).parameters
        theirs = getattr(diffusers, name).from_config(
            source, **{k: v for k, v in settings.items() if k in known}
        )
        ends = []
        for scheduler in (theirs, PlanScheduler.from_config(theirs.config, trained_with=name, method=method)):
            pipe.scheduler = scheduler
            ends.append(latents(pipe, call))
        assert torch.allclose(*ends, atol=1e-4)


def test_flux_agrees_with_its_scheduler() -> None:
    pipe, call = flux()
    theirs = latents(pipe, call)
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method="euler")
    assert torch.allclose(latents(pipe, call), theirs, atol=1e-5)


def test_custom_sigmas_and_timesteps_reach_the_scheduler() -> None:
    pipe, call = stable_diffusion()
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method="euler")
    latents(pipe, call, timesteps=[999, 850, 736, 645, 545, 455, 343, 233, 124, 24])
    assert pipe.scheduler.timesteps.tolist() == [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    sigmas = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0]
    latents(pipe, call, sigmas=sigmas)
    assert torch.allclose(pipe.scheduler.sigmas[1:], torch.tensor(sigmas[1:]), rtol=1e-4)


@pytest.mark.parametrize("method", ["euler", "dpmpp_2m", "unipc_2", "heun"])
@pytest.mark.parametrize("family", ["StableDiffusion", "Flux"])
def test_img2img_begins_where_the_pipeline_says(family: str, method: str) -> None:
    pipe, call = stable_diffusion() if family == "StableDiffusion" else flux()
    pipe = quiet(getattr(diffusers, f"{family}Img2ImgPipeline")(**pipe.components, **(
        {"requires_safety_checker": False} if family == "StableDiffusion" else {})))  # fmt: skip
    image = torch.rand(1, 3, 16, 16, generator=seeded())
    call = {**call, "image": image, "height": 16, "width": 16} if family == "Flux" else {
        k: v for k, v in {**call, "image": image}.items() if k not in ("height", "width")}  # fmt: skip
    theirs = latents(pipe, call, strength=0.5) if method == "euler" and family == "Flux" else None
    pipe.scheduler = PlanScheduler.from_config(pipe.scheduler.config, method=method)
    ours = latents(pipe, call, strength=0.5)
    assert pipe.scheduler.begin_index == NFE // 2
    assert pipe.scheduler.step_index == NFE
    assert theirs is None or torch.allclose(ours, theirs, atol=1e-5)
