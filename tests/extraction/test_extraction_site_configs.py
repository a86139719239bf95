"""The shipped site configurations: columns as in the files, groups for every string."""

import csv
import gzip
import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

from fairsynth.config import read_site
from fairsynth.extraction.rules import read_rules

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iii-demo"

MIMIC3_STRINGS = {
    "white": ["WHITE", "WHITE - RUSSIAN", "WHITE - OTHER EUROPEAN", "WHITE - BRAZILIAN", "WHITE - EASTERN EUROPEAN"],
    "black": ["BLACK/AFRICAN AMERICAN", "BLACK/CAPE VERDEAN", "BLACK/HAITIAN", "BLACK/AFRICAN"],
    "hispanic": [
        "HISPANIC OR LATINO",
        "HISPANIC/LATINO - PUERTO RICAN",
        "HISPANIC/LATINO - DOMINICAN",
        "HISPANIC/LATINO - GUATEMALAN",
        "HISPANIC/LATINO - CUBAN",
        "HISPANIC/LATINO - SALVADORAN",
        "HISPANIC/LATINO - CENTRAL AMERICAN (OTHER)",
        "HISPANIC/LATINO - MEXICAN",
        "HISPANIC/LATINO - COLOMBIAN",
        "HISPANIC/LATINO - HONDURAN",
    ],
    "asian": [
        "ASIAN",
        "ASIAN - CHINESE",
        "ASIAN - ASIAN INDIAN",
        "ASIAN - VIETNAMESE",
        "ASIAN - FILIPINO",
        "ASIAN - CAMBODIAN",
        "ASIAN - OTHER",
        "ASIAN - KOREAN",
        "ASIAN - JAPANESE",
        "ASIAN - THAI",
    ],
    "other": [
        "UNKNOWN/NOT SPECIFIED",
        "OTHER",
        "UNABLE TO OBTAIN",
        "PATIENT DECLINED TO ANSWER",
        "MULTI RACE ETHNICITY",
        "PORTUGUESE",
        "AMERICAN INDIAN/ALASKA NATIVE",
        "MIDDLE EASTERN",
        "NATIVE HAWAIIAN OR OTHER PACIFIC ISLANDER",
        "CARIBBEAN ISLAND",
        "SOUTH AMERICAN",
        "AMERICAN INDIAN/ALASKA NATIVE FEDERALLY RECOGNIZED TRIBE",
    ],
}
PIC_STRINGS = {
    **{name.lower(): [f"{name} ethnic"] for name in ("Han", "Yi", "Buyei", "Miao", "Tujia", "Hui")},
    "other": [
        f"{name} ethnic"
        for name in (
            "Zhuang",
            "Manchu",
            "She",
            "Mongol",
            "Tibetan",
            "Uygur",
            "Korean",
            "Dong",
            "Yao",
            "Bai",
            "Li",
            "Tu",
        )
    ],
}


def group_of(folder, raw):
    """The group by ordered rules, first match wins, independently of the loader."""
    found = yaml.safe_load((folder / "groups.yaml").read_text(encoding="utf-8"))["rules"]
    return next((rule["group"] for rule in found if re.search(rule["match"], raw.upper())), None)


def test_all_41_strings_of_mimic3_have_their_group(mimic3):
    assert sum(map(len, MIMIC3_STRINGS.values())) == 41
    for group, strings in MIMIC3_STRINGS.items():
        assert {group_of(mimic3, raw) for raw in strings} == {group}, group


def test_the_strings_of_pic_have_their_group(pic):
    for group, strings in PIC_STRINGS.items():
        assert {group_of(pic, raw) for raw in strings} == {group}, group


@pytest.mark.parametrize("raw", ["WHITE - MARTIAN", "ASIANA", "HISPANIC", "BLACK", "", "N/A", "Han", "WHITE "])
def test_an_unlisted_string_of_mimic3_has_no_group(mimic3, raw):
    assert group_of(mimic3, raw) is None


@pytest.mark.parametrize("raw", ["Hani tribe", "Shan ethnic", "Yiyi ethnic", "WHITE", ""])
def test_an_unlisted_string_of_pic_has_no_group(pic, raw):
    assert group_of(pic, raw) is None


def test_no_rule_of_a_group_shadows_another(mimic3, pic):
    for folder, strings in ((mimic3, MIMIC3_STRINGS), (pic, PIC_STRINGS)):
        rules = yaml.safe_load((folder / "groups.yaml").read_text(encoding="utf-8"))["rules"]
        for raw in chain.from_iterable(strings.values()):
            assert len({rule["group"] for rule in rules if re.search(rule["match"], raw.upper())}) == 1, raw


def test_adults_at_one_site_and_children_at_the_other(mimic3, pic):
    assert read_site(mimic3).cohort.minimum_age_years == 16
    assert read_site(pic).cohort.maximum_age_years == 18


@pytest.mark.skipif(not DEMO.is_dir(), reason="needs shared/data/mimic-iii-demo")
def test_the_columns_of_every_mimic3_file_are_those_of_the_real_one(mimic3):
    for rule in read_rules(mimic3).files:
        with gzip.open(DEMO / f"{rule.file}.csv.gz", "rt", encoding="utf-8") as handle:
            header = next(csv.reader(handle))
        assert tuple(name.upper() for name in header) == rule.columns, rule.file
