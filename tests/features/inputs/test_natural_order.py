from features.inputs.natural_order import are_only_numbered, find_gap, natural_key, read_numbers


def test_numbers_in_names_are_compared_as_numbers():
    names = ["x/a10.png", "x/a2.png", "b.png", "x/a2b.png", "12.png", "7.png", "b.png1"]
    assert sorted(names, key=natural_key) == [
        *("7.png", "12.png", "b.png", "b.png1", "x/a2.png", "x/a2b.png", "x/a10.png")
    ]


def test_numbered_files_have_one_prefix_and_a_number_each():
    assert read_numbers(["x/a10.png", "a9.jpg"]) == [10, 9]
    assert read_numbers(["007.png", "8.png"]) == [7, 8]
    for names in ([], ["a1.png", "b2.png"], ["a1.png", "a.png"], ["a1b.png"]):
        assert read_numbers(names) is None


def test_names_that_count_the_files_are_no_labels():
    numbered = [str(number) for number in range(100)]
    assert are_only_numbered([f"{number}.png" for number in numbered])
    assert are_only_numbered([f"{number}.png" for number in numbered if number not in ("7", "20")])
    assert are_only_numbered([f"{split}/{number}.png" for split in ("train", "test") for number in numbered])
    assert are_only_numbered(["a0.png", "a1.png", "a7.png"])
    assert not are_only_numbered(["4821.png", "7766.png", "0042.png", "1000.png"])
    assert not are_only_numbered(["a0.png", "b1.png", "a2.png"])
    assert not are_only_numbered(["1.png", "2.png"])


def test_the_first_gap_is_found():
    assert find_gap([3, 4, 6, 9]) == (4, 6)
    assert find_gap([3, 3]) == (3, 3)
    assert find_gap([3, 4]) is None
    assert find_gap([]) is None
