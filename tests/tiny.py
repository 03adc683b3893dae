"""Random models of a few thousand weights, one per family that Typecast draws with: made in the test, nothing loaded.

Every pipeline draws 32 x 32 pixels through an autoencoder of factor 2, so two steps take a fraction of a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'"
TOKENS = 24
"""Length of a CLIP text, specials included."""
WIDTH = 32
"""Of every text encoder."""


def clip_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that spells: one token per letter, another where the letter ends a word."""
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TOKENS)


def t5_tokenizer() -> T5Tokenizer:
    """A T5 tokenizer made from a list of pieces."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TOKENS)


def clip_text(kind: Any = CLIPTextModel) -> Any:
    """A CLIP text encoder for `clip_tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return kind(config).eval()


def t5_text(width: int = WIDTH) -> T5EncoderModel:
    """A T5 encoder for `t5_tokenizer`."""
    size = len(t5_tokenizer())
    config = T5Config(vocab_size=size, d_model=width, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def vae(channels: int = 4, **more: Any) -> AutoencoderKL:
    """An autoencoder of factor 2."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=2,
        sample_size=32,
        **more,
    ).eval()


def unet(text_width: int, **more: Any) -> UNet2DConditionModel:
    """A UNet with one block that looks at the text."""
    return UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=2,
        norm_num_groups=2,
        **more,
    ).eval()


def ddim() -> DDIMScheduler:
    """As the embedded model has it: v-prediction, zero terminal SNR, trailing steps."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=False,
    )


VISION = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8, "projection_dim": WIDTH}
"""What a safety checker sees with."""


def eyes() -> CLIPImageProcessor:
    """What makes an image ready for it."""
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def safety_checker(*, flags: bool) -> StableDiffusionSafetyChecker:
    """A checker that finds every image unsafe, or none: a cosine is never above 1.5 and never below -1.5."""
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=VISION, projection_dim=WIDTH)).eval()
    with torch.no_grad():
        for thresholds in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
            thresholds.fill_(-1.5 if flags else 1.5)
    return checker


def stable_diffusion(folder: Path, *, flags: bool | None = None) -> Path:
    """Stable Diffusion 1.x, without a safety checker or with one that flags all or nothing."""
    torch.manual_seed(0)
    checker = None if flags is None else safety_checker(flags=flags)
    StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(WIDTH),
        scheduler=ddim(),
        safety_checker=checker,
        feature_extractor=eyes() if checker else None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def sdxl(folder: Path) -> Path:
    """Stable Diffusion XL: two text encoders, of which the second is pooled and joins the time embedding."""
    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=ddim(),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def sd3(folder: Path) -> Path:
    """Stable Diffusion 3: two pooled CLIPs and a T5 before a transformer with flow matching."""
    torch.manual_seed(0)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * WIDTH,
            out_channels=4,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(CLIPTextModelWithProjection),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(2 * WIDTH),
        tokenizer_3=t5_tokenizer(),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def flux(folder: Path, *, distilled: bool = True) -> Path:
    """FLUX: a pooled CLIP and a T5; `distilled` as FLUX.1-dev, whose guidance is an input of the network."""
    torch.manual_seed(0)
    FluxPipeline(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=distilled,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def if_safety_checker(*, unsafe: bool, marked: bool) -> IFSafetyChecker:
    """DeepFloyd IF's, which finds every image unsafe or none, and a watermark in every image or in none.

    transformers 5 cannot load one.
    """
    checker = IFSafetyChecker(CLIPConfig(vision_config=VISION, projection_dim=WIDTH)).eval()
    for head, finds in ((checker.p_head, unsafe), (checker.w_head, marked)):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, float(finds))
    return checker


def deepfloyd_if(folder: Path) -> Path:
    """DeepFloyd IF, which draws pixels without an autoencoder."""
    torch.manual_seed(0)
    IFPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        unet=UNet2DConditionModel(
            sample_size=32,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=2,
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            in_channels=3,
            out_channels=6,
            cross_attention_dim=WIDTH,
            encoder_hid_dim=WIDTH,
            attention_head_dim=8,
            resnet_time_scale_shift="scale_shift",
        ).eval(),
        scheduler=DDPMScheduler(
            beta_schedule="linear",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
            sample_max_value=1.0,
            variance_type="learned_range",
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


def kandinsky3(folder: Path) -> Path:
    """Kandinsky 3: a T5, and a `movq` in the place of an autoencoder."""
    torch.manual_seed(0)
    Kandinsky3Pipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_text(),
        unet=Kandinsky3UNet(
            in_channels=4,
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            layers_per_block=3,
            block_out_channels=(8, 16),
            cross_attention_dim=4,
            encoder_hid_dim=WIDTH,
        ).eval(),
        scheduler=ddim(),
        movq=VQModel(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=2,
            num_vq_embeddings=12,
        ).eval(),
    ).save_pretrained(folder, safe_serialization=True)
    return folder


FAMILIES = {"stable_diffusion": stable_diffusion, "sdxl": sdxl, "sd3": sd3, "flux": flux}
