import pytest

from ctpo.theory.tables import Table, documented, shown


def table(value):
    return Table("some", "Some numbers", ("a", "b"), (("x|y", value),))


def test_what_is_below_rounding_is_shown_as_such():
    assert shown(3e-16) == "< 1e-12"
    assert shown(0.123456) == "0.123"
    assert shown(7) == "7"


def test_a_bar_does_not_end_a_cell():
    assert table(1).markdown().splitlines()[2] == r"| x\|y | 1 |"


def test_a_table_survives_json():
    assert Table.from_dict(table(0.5).to_dict()) == table(0.5)


def test_a_page_gets_its_tables_and_keeps_its_text():
    page = "before\n<!-- table: some -->\nold\n<!-- end of table -->\nafter\n"
    new = documented(page, [table(2)])
    assert new.startswith("before\n") and new.endswith("after\n")
    assert "old" not in new and "| x\\|y | 2 |" in new
    assert documented(new, [table(2)]) == new
    assert documented("no marker", [table(2)]) == "no marker"


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="a row of table 'some' has 1 cells"):
        Table("some", "", ("a", "b"), (("x",),))
