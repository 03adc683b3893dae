"""Reference tables: the numbers are the publisher's, what is missing says why, and nothing missing is read as zero."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from statsmodels.stats.proportion import proportion_confint

import prompt_sets
from classifiers.attributes import ATTRIBUTES
from pipeline.errors import InputError
from pipeline.estimates import published
from pipeline.types import Distribution
from prompt_sets.references import REFERENCE
from scripts import emoji_world, write_taught_tones

GENDER = ("woman", "man")
RACES = ("White", "Black", "Asian")

PUBLISHED_2021 = {  # percent women, White, Black, Asian: BLS CPS Table 11, 2021, copied by hand from the table
    "chef": (22.8, 63.0, 14.8, 19.9),
    "cook": (40.2, 72.9, 15.8, 6.0),
    "firefighter": (5.1, 84.3, 8.9, 2.6),
    "therapist": (87.1, 78.7, 14.0, 5.9),
    "CEO": (29.1, 85.7, 5.9, 6.8),
    "housekeeper": (88.7, 74.9, 15.2, 5.2),
    "pilot": (5.3, 93.0, 3.9, 1.5),
    "flight attendant": (64.6, 70.7, 18.4, 7.1),
    "taxi driver": (12.0, 56.8, 25.1, 15.3),
    "nurse": (86.7, 74.9, 13.3, 8.6),
    "software developer": (19.7, 54.7, 5.4, 37.1),
    "lawyer": (37.9, 87.9, 5.4, 4.7),
    "judge": (58.0, 71.3, 22.0, 2.6),
    "doctor": (39.7, 66.1, 8.1, 22.9),
    "architect": (31.6, 79.9, 4.6, 13.3),
    "janitor": (39.7, 73.8, 18.1, 3.5),
    "dishwasher": (23.5, 72.0, 17.3, 2.7),
    "fast food worker": (65.7, 75.2, 13.0, 5.7),
    "cashier": (72.5, 71.1, 17.0, 6.9),
    "teacher": (79.2, 83.8, 10.0, 3.4),
    "social worker": (83.6, 65.4, 25.8, 4.6),
    "police officer": (15.3, 83.3, 11.5, 1.6),
}


def lines(name: str) -> list[dict[str, str]]:
    with (REFERENCE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def given(found: Distribution | str) -> Distribution:
    assert isinstance(found, Distribution), found
    return found


def reason(found: Distribution | str) -> str:
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("concept", PUBLISHED_2021)
def test_the_shares_of_2021_are_the_published_ones(concept: str) -> None:
    table = prompt_sets.load_reference("bls_cps_table11", 2021)
    women, *races = PUBLISHED_2021[concept]
    found = given(table.distribution(concept, "gender", GENDER))
    assert found.shares == pytest.approx((women / 100, 1 - women / 100))
    assert given(table.distribution(concept, "race", RACES)).shares == pytest.approx([share / 100 for share in races])
    assert str(found.source) == "BLS, CPS Table 11, 2021, women"


def test_the_base_rate_is_all_employed_and_not_one_half() -> None:
    table = prompt_sets.load_reference("bls_cps_table11", 2021)
    assert given(table.base("gender", GENDER)).shares[0] == pytest.approx(0.470)
    assert given(table.base("race", RACES)).shares == pytest.approx((0.775, 0.123, 0.066))


def test_levels_come_in_the_order_they_are_asked_for_and_an_unknown_one_is_nan() -> None:
    table = prompt_sets.load_reference("bls_cps_table11", 2021)
    found = given(table.distribution("chef", "gender", ("man", "neither", "woman")))
    assert found.shares[0] == pytest.approx(0.772) and found.shares[2] == pytest.approx(0.228)
    assert math.isnan(found.shares[1]) and math.isnan(found.low[1]) and math.isnan(found.high[1])
    assert "woman, man" in reason(table.distribution("chef", "gender", ("neither",)))


def test_the_interval_is_the_range_over_the_years() -> None:
    """Flight attendants, women: 81.3, 79.7, 64.6, 69.9, 78.0 percent in 2019 to 2023."""
    for year, share in zip(range(2019, 2024), (0.813, 0.797, 0.646, 0.699, 0.780), strict=True):
        table = prompt_sets.load_reference("bls_cps_table11", year)
        found = given(table.distribution("flight attendant", "gender", GENDER))
        assert (found.shares[0], found.low[0], found.high[0]) == pytest.approx((share, 0.646, 0.813))
        assert (found.low[1], found.high[1]) == pytest.approx((0.187, 0.354))


def test_what_an_answer_stands_for_is_what_the_table_shows_two_years_apart() -> None:
    """Half the squared change of a share over two years, in units of p(1-p)/workers: no household is asked in both
    years, and in small rows the state of things itself changes by much less than that."""
    table = prompt_sets.load_reference("bls_cps_table11", 2023)
    found = []
    for attribute, level in (("gender", "woman"), ("race", "White"), ("race", "Black"), ("race", "Asian")):
        ratios = []
        for (year, name), row in table.rows.items():
            later = table.rows.get((year + 2, name)) if year and year >= 2020 else None
            if later and attribute in row.shares and attribute in later.shares:
                p, q = row.shares[attribute][level], later.shares[attribute][level]
                workers = 2000 / (1 / row.thousands + 1 / later.thousands)
                if 0.03 < (p + q) / 2 < 0.97 and workers < 300_000:
                    middle = (p + q) / 2
                    ratios.append((p - q) ** 2 * workers / (2 * middle * (1 - middle)))
        assert len(ratios) > 100
        found.append(fmean(ratios))
    assert table.entry.people_per_answer == pytest.approx(fmean(found), rel=0.1)
    assert max(found) / min(found) < 1.4, "one figure does for all columns"
    firefighters = given(table.distribution("firefighter", "gender", GENDER))
    assert firefighters.n == round(1000 * 296 / 1300)


def test_white_includes_hispanic_and_is_a_range_to_a_viewer() -> None:
    """Housekeepers, 2021: 74.9 percent White, 48.2 percent Hispanic of any race."""
    table = prompt_sets.load_reference("bls_cps_table11", 2021)
    found = given(table.distribution("housekeeper", "race", RACES))
    assert (found.least[0], found.shares[0]) == pytest.approx((0.749 - 0.482, 0.749))
    assert found.least[1:] == found.shares[1:]
    women = given(table.distribution("housekeeper", "gender", GENDER))
    assert women.least == women.shares
    whole = published(found, 0)
    assert whole.low < 0.267 and whole.high > 0.749 and whole.value == pytest.approx(0.749)


def test_white_reaches_down_to_every_year_of_the_table_without_hispanic_people() -> None:
    """Telecommunications line installers: 64.3 percent in 2023, and 41.4 in 2021."""
    least: dict[str, float] = {}
    for line in lines("bls_cps_table11_2019_2023.csv"):
        if line["pct_white"] and line["pct_hispanic"] and float(line["total_employed_thousands"]) >= 50:
            share = max(float(line["pct_white"]) - float(line["pct_hispanic"]), 0.0) / 100
            least[line["occupation"]] = min(least.get(line["occupation"], 1.0), share)
    table = prompt_sets.load_reference("bls_cps_table11", 2023)
    named = replace(table, matches=None)
    found = {name: named.distribution(name, "race", RACES) for name in least}
    lows = {name: published(d, 0).low for name, d in found.items() if isinstance(d, Distribution)}
    assert len(lows) > 380
    assert [name for name, low in lows.items() if low > least[name] + 1e-9] == []
    assert lows["Telecommunications line installers and repairers"] == pytest.approx(0.414)
    black = given(found["Telecommunications line installers and repairers"])
    assert (black.low[1], black.high[1]) == pytest.approx((0.084, 0.192)), "what is no range is as it was"


def test_a_published_share_has_the_surveys_error_and_an_exact_one_has_none() -> None:
    labour = given(prompt_sets.load_reference("bls_cps_table11", 2023).distribution("pilot", "gender", GENDER))
    assert labour.n is not None
    k = labour.shares[0] * labour.n
    low, high = proportion_confint(k, labour.n, method="wilson")
    found = published(labour, 0)
    assert (found.low, found.high) == pytest.approx((min(low, labour.low[0]), max(high, labour.high[0])))
    taught = given(prompt_sets.load_reference("taught_shares").distribution("pilot", "gender", GENDER))
    exact = published(taught, 0)
    assert exact.low == exact.value == exact.high == taught.shares[0]


@pytest.mark.parametrize(
    ("changed", "argument"),
    [
        ({"low": (0.5, 0.5), "high": (0.1, 0.5)}, "low"),
        ({"n": -4}, "n"),
        ({"shares": (1.5, 0.5)}, "shares"),
        ({"high": (0.5,)}, "high"),
        ({"least": (-0.1, 0.5)}, "least"),
    ],
)
def test_a_distribution_that_is_none_is_named(changed: dict[str, Any], argument: str) -> None:
    whole: dict[str, Any] = dict.fromkeys(("shares", "low", "high"), (0.5, 0.5))
    Distribution(attribute="gender", group="cook", levels=GENDER, **whole)
    with pytest.raises(ValueError, match=rf"^{argument} must"):
        Distribution(attribute="gender", group="cook", levels=GENDER, **(whole | changed))


def test_rows_that_were_recoded_in_2020_are_not_mixed_into_one_range() -> None:
    """Software developers are White to 54.0, 57.5, 54.7, 55.0 and 54.6 percent; the row of 2019 is another one.

    Hispanic are 5.1, 5.9, 5.8, 5.7 and 6.0 percent.
    """
    found = given(prompt_sets.load_reference("bls_cps_table11", 2023).distribution("software developer", "race", RACES))
    assert (found.shares[0], found.low[0], found.high[0]) == pytest.approx((0.546, 0.486, 0.575))
    old = given(prompt_sets.load_reference("bls_cps_table11", 2019).distribution("software developer", "race", RACES))
    assert (old.shares[0], old.low[0], old.high[0]) == pytest.approx((0.540, 0.489, 0.540))
    missing = prompt_sets.load_reference("bls_cps_table11", 2019).distribution("graphic designer", "gender", GENDER)
    assert "2019" in reason(missing) and "Graphic designers" in reason(missing)


def test_a_row_whose_capitals_changed_is_the_same_row() -> None:
    """`File clerks` until 2020, `File Clerks` since."""
    for year in range(2019, 2024):
        given(prompt_sets.load_reference("bls_cps_table11", year).distribution("File Clerk", "gender", GENDER))


@pytest.mark.parametrize("year", range(2019, 2024))
def test_legislators_are_suppressed_and_not_zero(year: int) -> None:
    for attribute, levels in (("gender", GENDER), ("race", RACES)):
        found = prompt_sets.load_reference("bls_cps_table11", year).distribution("politician", attribute, levels)
        assert "Legislators" in reason(found) and "fewer than 50 thousand" in reason(found)


def test_a_suppressed_row_is_also_suppressed_in_the_table_that_gives_counts() -> None:
    """Table 11b has 12 thousand legislators, 1 thousand of them 65 and over: no share is made of that."""
    ages = ATTRIBUTES["age"].levels
    found = prompt_sets.load_reference("bls_cps_table11b").distribution("politician", "age", ages)
    assert "12 thousand people" in reason(found)


def test_an_own_count_that_tells_no_race_of_a_concept_is_not_suppressed() -> None:
    """Of two pictures of a CEO the gender is told, and of neither the race."""
    counted = prompt_sets.references.counted_reference(
        publisher="LAION",
        table="my count",
        title="Pictures of LAION",
        licence="CC0-1.0",
        levels={"gender": GENDER, "race": RACES},
        counts={("CEO", "gender", "woman"): 1, ("CEO", "gender", "man"): 1, ("CEO", "race", "cannot tell"): 2},
    )
    assert reason(counted.distribution("CEO", "race", RACES)) == "my count has nobody under 'CEO' whose race is told"
    assert given(counted.distribution("CEO", "gender", GENDER)).shares == (0.5, 0.5)


def test_age_is_older_from_65_and_no_child_is_counted() -> None:
    """Chief executives, 2023: 201 of 1,780 thousand are 65 and over; all employed: 10,879 of 161,037."""
    table = prompt_sets.load_reference("bls_cps_table11b")
    found = given(table.distribution("ceo", "age", ("child", "adult", "older")))
    assert math.isnan(found.shares[0])
    assert found.shares[1:] == pytest.approx((1 - 201 / 1780, 201 / 1780))
    assert found.low[1:] == found.high[1:] == found.shares[1:]
    assert given(table.base("age", ("older",))).shares == pytest.approx((10879 / 161037,))


def test_a_concept_without_a_row_has_a_reason() -> None:
    table = prompt_sets.load_reference("bls_cps_table11")
    assert "'thug'" in reason(table.distribution("thug", "gender", GENDER))
    assert "astronauts" in reason(table.distribution("astronaut", "gender", GENDER))
    assert "skin_tone" in reason(table.distribution("chef", "skin_tone", ("light", "dark")))
    assert "'thug'" in reason(prompt_sets.load_reference("taught_shares").distribution("thug", "gender", GENDER))


def test_no_year_is_the_newest() -> None:
    assert prompt_sets.load_reference("bls_cps_table11", None).year == 2023
    assert prompt_sets.load_reference("taught_shares").year is None


@pytest.mark.parametrize(
    ("table", "year", "says"),
    [
        ("bls", None, "bls_cps_table11, bls_cps_table11b, taught_shares"),
        ("bls_cps_table11", 2018, "2019, 2020, 2021, 2022, 2023"),
        ("bls_cps_table11b", 2021, "2023"),
        ("taught_shares", 2023, "leave year out"),
    ],
)
def test_an_unknown_table_or_year_is_answered_with_the_known_ones(table: str, year: int | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        prompt_sets.load_reference(table, year)


# -- the files ---------------------------------------------------------------------------------------


def test_every_percentage_is_one_and_every_empty_cell_stays_empty() -> None:
    rows = lines("bls_cps_table11_2019_2023.csv")
    assert {year: sum(row["year"] == year for row in rows) for year in ("2019", "2020", "2021", "2022", "2023")} == {
        "2019": 565,
        "2020": 595,
        "2021": 595,
        "2022": 595,
        "2023": 595,
    }
    tables = {str(year): prompt_sets.load_reference("bls_cps_table11", year) for year in range(2019, 2024)}
    for row in rows:
        cells = [row[column] for column in ("pct_women", "pct_white", "pct_black", "pct_asian", "pct_hispanic")]
        suppressed = float(row["total_employed_thousands"]) < 50
        assert all((cell == "") == suppressed for cell in cells)
        assert all(0 <= float(cell) <= 100 for cell in cells if cell)
        shares = tables[row["year"]].rows[int(row["year"]), row["occupation"].casefold()].shares
        assert set(shares) == (set() if suppressed else {"gender", "race"})


def test_the_two_tables_of_2023_count_the_same_people() -> None:
    totals = {
        row["occupation"]: row["total_employed_thousands"]
        for row in lines("bls_cps_table11_2019_2023.csv")
        if row["year"] == "2023"
    }
    ages = {row["occupation"]: row["total_thousands"] for row in lines("bls_cps_table11b_age_2023.csv")}
    assert ages.pop("Total employed") == totals.pop("Total, 16 years and over")
    assert ages == totals


def test_every_match_names_rows_that_exist_and_its_quality_tells_the_truth() -> None:
    table = prompt_sets.load_reference("bls_cps_table11", 2023)
    matches = lines("occupation_to_bls.csv")
    assert len({match["concept"].casefold() for match in matches}) == len(matches)
    for match in matches:
        concept, quality = match["concept"], match["match_quality"]
        for year in (2020, 2021, 2022, 2023):
            assert quality == "none" or (year, match["bls_row"].casefold()) in table.rows, concept
        if match["bls_row_2019"]:
            assert (2019, match["bls_row_2019"].casefold()) in table.rows, concept
            assert (2019, match["bls_row"].casefold()) not in table.rows, concept
        if quality != "good":
            assert match["note"], concept
        found = table.distribution(concept, "gender", GENDER)
        assert isinstance(found, str) == (quality in ("suppressed", "none")), concept


def test_a_poor_match_says_so() -> None:
    found = prompt_sets.load_reference("bls_cps_table11").match("therapist")
    assert isinstance(found, prompt_sets.Match)
    assert (found.quality, found.row) == ("poor", "Therapists, all other") and "marriage" in found.note


def test_every_occupation_of_the_embedded_world_names_its_row_or_says_declared() -> None:
    """The taught share of women is that of the row in 2023, which the map names too."""
    table = prompt_sets.load_reference("bls_cps_table11", 2023)
    for row in lines("taught_shares.csv"):
        if row["attribute"] != "gender":
            continue
        match = table.match(row["concept"])
        if row["basis"] == "declared":
            assert isinstance(match, str)
            continue
        assert isinstance(match, prompt_sets.Match)
        assert row["basis"] == f"BLS CPS Table 11 2023: {match.row}"
        assert given(table.distribution(row["concept"], "gender", GENDER)).shares[0] == pytest.approx(
            float(row["share"])
        )


# -- the taught shares -------------------------------------------------------------------------------


def test_the_taught_shares_are_exact_and_their_base_is_the_mean_over_the_occupations() -> None:
    table = prompt_sets.load_reference("taught_shares")
    found = given(table.distribution("Mechanic", "gender", GENDER))
    assert found.shares == found.low == found.high == pytest.approx((0.025, 0.975))
    women = [float(row["share"]) for row in lines("taught_shares.csv") if row["level"] == "woman"]
    assert len(women) == 20
    assert given(table.base("gender", GENDER)).shares == pytest.approx((fmean(women), 1 - fmean(women)))


def test_the_taught_tones_in_the_file_are_those_of_the_training() -> None:
    table = prompt_sets.load_reference("taught_shares")
    levels = ATTRIBUTES["skin_tone"].levels
    world = emoji_world.pictures()
    for concept in emoji_world.women_shares():
        found = given(table.distribution(concept, "skin_tone", levels))
        taught = emoji_world.taught_tones(world, concept)
        assert found.shares == pytest.approx([taught[level] for level in levels], abs=5.1e-7)
        assert sum(found.shares) == pytest.approx(1, abs=3e-6)
        assert given(table.distribution(concept, "age", ATTRIBUTES["age"].levels)).shares == (0, 1, 0)


def test_writing_the_taught_tones_again_changes_nothing() -> None:
    text = emoji_world.TAUGHT.read_text(encoding="utf-8")
    assert write_taught_tones.rewritten(text) == text
