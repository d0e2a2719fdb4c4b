"""Defines the defaults that both an option's help and the code behind it state."""

MAX_IMAGE_PIXELS = 178_956_970  # Pillow's own limit: 0.5 GiB of RGB
MAX_IMAGE_BYTES = 256 << 20
SPLIT_RATIOS = (0.8, 0.1, 0.1)
BATCH_SIZE = 24  # images per forward pass on a processor, which without AVX-512 computes multiples of 24
ACCELERATOR_BATCH_SIZE = 256  # and on an accelerator
VOCAB_SIZE = 5000
PUBLISHED_CAPTCHA_SIZE = (80, 160)  # height and width in pixels at which the published CAPTCHAs are stored
MAX_FAILURES = "5%"
MAX_DOWNLOAD_FAILURES = "100%"  # many published URLs are dead
DOWNLOAD_THREADS = 32  # simultaneous downloads per process
