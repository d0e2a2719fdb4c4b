"""Builds the style of CAPTCHAs from the options of `capt synth captcha`."""

from dataclasses import replace

from features.synthetic.captchas.backgrounds import list_backgrounds
from features.synthetic.captchas.fonts import check_shaping, list_fonts, select_default_fonts
from features.synthetic.captchas.labels import (
    LENGTHS,
    load_default_words,
    parse_characters,
    read_words,
    select_words,
)
from features.synthetic.captchas.style import (
    LABEL_WIDTH,
    CaptchaStyle,
    parse_fractions,
    parse_integers,
    parse_stroke_types,
)
from schemas.errors import UsageError
from schemas.options.data import SynthCaptcha


def read_style(options: SynthCaptcha) -> tuple[CaptchaStyle, dict[str, str]]:
    """Reads words, fonts and backgrounds, and checks all options.

    Returns:
        The style, and the fonts that are skipped, with the reason.

    Raises:
        UsageError: An option is invalid, or does not fit the others.
    """
    words, characters = _read_words(options), parse_characters(options.charset) if options.charset else ()
    lengths = parse_integers(options.lengths, "--lengths", "4,6") if options.lengths else LENGTHS
    if options.background and options.background_dir:
        raise UsageError("the images are the backgrounds", location="--background", hint="Omit one of the options.")
    style = CaptchaStyle(
        words=select_words(words, lengths) if words and options.lengths else words,
        fonts=(),
        num_strokes=parse_integers(options.num_strokes, "--num-strokes", "8,20"),
        max_rotation=options.max_rotation,
        width=options.width,
        height=options.height,
        characters=characters,
        lengths=lengths,
        max_width=options.max_width,
        label_width=(
            parse_fractions(options.label_width, "--label-width", "0.5,0.9") if options.label_width else LABEL_WIDTH
        ),
        background=options.background or "speckles",
        stroke_types=parse_stroke_types(options.stroke_types),
        weight_change=parse_integers(options.weight_change, "--weight-change", "-3,0"),
        max_overlap=options.max_overlap,
        max_shear=options.max_shear,
        max_warp=options.max_warp,
        max_blur=options.max_blur,
    )
    if style.needs_shaping:
        check_shaping()
    needed = style.label_characters
    fonts = list_fonts(options.font_dir, needed) if options.font_dir else select_default_fonts(needed)
    backgrounds = list_backgrounds(options.background_dir) if options.background_dir else ()
    return replace(style, fonts=fonts.files, background_images=backgrounds), fonts.skipped


def _read_words(options: SynthCaptcha) -> tuple[str, ...]:
    """Returns the words of the labels; none if the labels are random characters."""
    if options.charset and options.word_list:
        raise UsageError("labels are words or random characters", location="--charset", hint="Omit one of the options.")
    if options.charset:
        return ()
    return read_words(options.word_list) if options.word_list else load_default_words()
