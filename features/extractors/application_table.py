"""The networks of `keras.applications`: their sizes, layers and published weights, as Keras has them.

A hash is what Keras checks a download by: MD5, or SHA-256 for ConvNeXt; MobileNet and MobileNetV2 have none.
`tests/features/extractors/test_application_table.py` holds every row against the Keras that is installed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from features.extractors.application import Application, PublishedWeights
from features.extractors.output_layers import OUTPUT

# The layers of the classifiers.
_POOLED = ("avg_pool", "predictions")
_UNNAMED = ("global_average_pooling2d", "predictions")
_DROPPED = ("avg_pool", "top_dropout", "predictions")
_DENSE = ("flatten", "fc1", "fc2", "predictions")

_MOBILENET_V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{{side}}"
_MOBILENET_V3 = "weights_mobilenet_v3_{}_224_1.0_float"


def _kernels(stem: str) -> tuple[str, str]:
    return tuple(f"{stem}_weights_tf_dim_ordering_tf_kernels{end}.h5" for end in ("_notop", ""))  # type: ignore[return-value]


@dataclass(frozen=True)
class _Family:
    """Networks that differ by size alone; `{}` is the variant, in lower case except in the function's name.

    Args:
        module, name, function, layer, top_layers, smallest, sides: as `Application` has them.
        files: tuple of str. Names of the published files, without top and with it.
        variants: tuple. Variant, side, hash without top, hash with top.
    """

    module: str
    name: str
    function: str
    layer: str
    top_layers: tuple[str, ...]
    files: tuple[str, str]
    variants: tuple[tuple[str, int, str | None, str | None], ...]
    smallest: int = 32
    sides: tuple[int, ...] = ()

    def networks(self) -> Iterator[Application]:
        for variant, side, without_top, with_top in self.variants:
            small = variant.lower()
            yield Application(
                name=self.name.format(small),
                module=self.module,
                function=self.function.format(variant),
                side=side,
                smallest=self.smallest,
                layer=self.layer,
                top_layers=tuple(layer.format(small) for layer in self.top_layers),
                without_top=PublishedWeights(self.files[0].format(small), without_top),
                with_top=PublishedWeights(self.files[1].format(small), with_top),
                sides=self.sides,
            )


_FAMILIES = (
    _Family(
        "vgg16",
        "vgg{}",
        "VGG{}",
        "block5_conv3",
        _DENSE,
        _kernels("vgg{}"),
        variants=(("16", 224, "6d6bbae143d832006294945121d1f1fc", "64373286793e3c8b2b4e3219cbf3544b"),),
    ),
    _Family(
        "vgg19",
        "vgg{}",
        "VGG{}",
        "block5_conv4",
        _DENSE,
        _kernels("vgg{}"),
        variants=(("19", 224, "253f8cb515780f3b799900260a226db6", "cbe5617147190e668d6c5d5026f83318"),),
    ),
    _Family(
        "inception_v3",
        "inception_v3",
        "InceptionV3",
        "mixed10",
        _POOLED,
        _kernels("inception_v3"),
        variants=(("", 299, "bcbd6486424b2319ff4ef7d526e38f63", "9a0d58056eeedaa3f26cb7ebd46da564"),),
        smallest=75,
    ),
    _Family(
        "inception_resnet_v2",
        "inception_resnet_v2",
        "InceptionResNetV2",
        "conv_7b_ac",
        _POOLED,
        _kernels("inception_resnet_v2"),
        variants=(("", 299, "d19885ff4a710c122648d3b5c3b684e4", "e693bd0210a403b3192acc6073ad2e96"),),
        smallest=75,
    ),
    _Family(
        "xception",
        "xception",
        "Xception",
        "block14_sepconv2_act",
        _POOLED,
        _kernels("xception"),
        variants=(("", 299, "b0042744bf5b25fce3cb969f33bebb97", "0a58e3b7378bc2990ea3b43d5981f1f6"),),
        smallest=71,
    ),
    _Family(
        "mobilenet",
        "mobilenet",
        "MobileNet",
        "conv_pw_13_relu",
        ("global_average_pooling2d", "dropout", "conv_preds", "reshape_2", "predictions"),
        ("mobilenet_1_0_{{side}}_tf_no_top.h5", "mobilenet_1_0_{{side}}_tf.h5"),
        variants=(("", 224, None, None),),
        sides=(128, 160, 192, 224),
    ),
    _Family(
        "mobilenet_v2",
        "mobilenet_v2",
        "MobileNetV2",
        "out_relu",
        _UNNAMED,
        (f"{_MOBILENET_V2}_no_top.h5", f"{_MOBILENET_V2}.h5"),
        variants=(("", 224, None, None),),
        sides=(96, 128, 160, 192, 224),
    ),
    _Family(
        "mobilenet_v3",
        "mobilenet_v3_{}",
        "MobileNetV3{}",
        OUTPUT,
        ("global_average_pooling2d", "conv_2", "activation_18", "dropout", "logits", "flatten", "predictions"),
        (f"{_MOBILENET_V3}_no_top_v2.h5", f"{_MOBILENET_V3}.h5"),
        variants=(("Small", 224, "d3e8ec802a04aa4fc771ee12a9a9b836", "8768d4c2e7dee89b9d02b2d03d65d862"),),
    ),
    _Family(
        "mobilenet_v3",
        "mobilenet_v3_{}",
        "MobileNetV3{}",
        OUTPUT,
        ("global_average_pooling2d", "conv_2", "activation_20", "dropout", "logits", "flatten", "predictions"),
        (f"{_MOBILENET_V3}_no_top_v2.h5", f"{_MOBILENET_V3}.h5"),
        variants=(("Large", 224, "07fb09a5933dd0c8eaafa16978110389", "59e551e166be033d707958cf9e29a6a7"),),
    ),
    _Family(
        "resnet",
        "resnet{}",
        "ResNet{}",
        "conv5_block3_out",
        _POOLED,
        _kernels("resnet{}"),
        variants=(
            ("50", 224, "4d473c1dd8becc155b73f8504c6f6626", "2cb95161c43110f7111970584f804107"),
            ("101", 224, "88cf7a10940856eca736dc7b7e228a21", "f1aeb4b969a6efcfb50fad2f0c20cfc5"),
            ("152", 224, "ee4c566cf9a93f14d82f913c2dc6dd0c", "100835be76be38e30d865e96f2aaae62"),
        ),
    ),
    _Family(
        "resnet_v2",
        "resnet{}_v2",
        "ResNet{}V2",
        "post_relu",
        _POOLED,
        _kernels("resnet{}v2"),
        variants=(
            ("50", 224, "fac2f116257151a9d068a22e544a4917", "3ef43a0b657b3be2300d5770ece849e0"),
            ("101", 224, "c0ed64b8031c3730f411d2eb4eea35b5", "6343647c601c52e1368623803854d971"),
            ("152", 224, "ed17cf2e0169df9d443503ef94b23b33", "a49b44d1979771252814e80f8ec446f9"),
        ),
    ),
    _Family(
        "densenet",
        "densenet{}",
        "DenseNet{}",
        "relu",
        _POOLED,
        _kernels("densenet{}"),
        variants=(
            ("121", 224, "30ee3e1110167f948a6b9946edeeb738", "9d60b8095a5708f2dcce2bca79d332c7"),
            ("169", 224, "b8c4d4c20dd625c148057b9ff1c1176b", "d699b8f76981ab1b30698df4c175e90b"),
            ("201", 224, "c13680b51ded0fb44dff2d8f86ac8bb1", "1ceb130c1ea1b78c3bf6114dbdfd8807"),
        ),
    ),
    _Family(
        "nasnet",
        "nasnet_{}",
        "NASNet{}",
        OUTPUT,
        _UNNAMED,
        ("nasnet_{}_no_top.h5", "nasnet_{}.h5"),
        variants=(
            ("Mobile", 224, "1ed92395b5b598bdda52abe5c0dbfd63", "020fb642bf7360b370c678b08e0adf61"),
            ("Large", 331, "d81d89dc07e6e56530c4e77faddd61b5", "11577c9a518f0070763c2b964a382f17"),
        ),
    ),
    _Family(
        "efficientnet",
        "efficientnet_b{}",
        "EfficientNetB{}",
        "top_activation",
        _DROPPED,
        ("efficientnetb{}_notop.h5", "efficientnetb{}.h5"),
        variants=(
            ("0", 224, "50bc09e76180e00e4465e1a485ddc09d", "902e53a9f72be733fc0bcb005b3ebbac"),
            ("1", 240, "74c4e6b3e1f6a1eea24c589628592432", "1d254153d4ab51201f1646940f018540"),
            ("2", 260, "111f8e2ac8aa800a7a99e3239f7bfb39", "b15cce36ff4dcbd00b6dd88e7857a6ad"),
            ("3", 300, "af6d107764bb5b1abb91932881670226", "ffd1fdc53d0ce67064dc6a9c7960ede0"),
            ("4", 380, "ebc24e6d6c33eaebbd558eafbeedf1ba", "18c95ad55216b8f92d7e70b3a046e2fc"),
            ("5", 456, "38879255a25d3c92d5e44e04ae6cec6f", "ace28f2a6363774853a83a0b21b9421a"),
            ("6", 528, "9ecce42647a20130c1f39a5d4cb75743", "165f6e37dce68623721b423839de8be5"),
            ("7", 600, "cbcfe4450ddf6f3ad90b1b398090fe4a", "8c03f828fec3ef71311cd463b6759d99"),
        ),
    ),
    _Family(
        "efficientnet_v2",
        "efficientnet_v2_{}",
        "EfficientNetV2{}",
        "top_activation",
        _DROPPED,
        ("efficientnetv2-{}_notop.h5", "efficientnetv2-{}.h5"),
        variants=(
            ("B0", 224, "893217f2bb855e2983157299931e43ff", "21ecbf6da12460d5c40bb2f29ceb2188"),
            ("B1", 240, "0e80663031ca32d657f9caa404b6ec37", "069f0534ff22adf035c89e2d9547a9dc"),
            ("B2", 260, "1dfe2e7a5d45b6632553a8961ea609eb", "424e49f28180edbde1e94797771950a7"),
            ("B3", 300, "f6abf7b5849ac99a89b50dd3fd532856", "1f1fc43bd98a6e4fd8fdfd551e02c7a0"),
            ("S", 384, "af0682fb74e8c54910f2d4393339c070", "e1d88a8495beba45748fedd0cecbe016"),
            ("M", 480, "1b8dc055df72dde80d614482840fe342", "a3bf6aa3276309f4fc6a34aa114c95cd"),
            ("L", 480, "b0b66b5c863aef5b46e8608fe1711615", "27e6d408b53c7ebc868fefa357689935"),
        ),
    ),
    _Family(
        "convnext",
        "convnext_{}",
        "ConvNeXt{}",
        OUTPUT,
        ("convnext_{}_head_gap", "convnext_{}_head_layernorm", "convnext_{}_head_dense"),
        ("convnext_{}_notop.h5", "convnext_{}.h5"),
        variants=(
            (
                "Tiny",
                224,
                "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
                "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
            ),
            (
                "Small",
                224,
                "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab",
                "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
            ),
            (
                "Base",
                224,
                "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
                "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
            ),
            (
                "Large",
                224,
                "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd",
                "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
            ),
            (
                "XLarge",
                224,
                "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05",
                "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
            ),
        ),
    ),
)

APPLICATIONS = {network.name: network for family in _FAMILIES for network in family.networks()}
