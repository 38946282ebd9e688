//! Tables: plain columns, cut to the terminal, never cut elsewhere.

use anstyle::{AnsiColor, Color as StyleColor, Effects, Style};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

use super::escape::printable;
use super::{Facts, lines};

/// One value of a table.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    text: String,
    style: Style,
    right: bool,
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Columns {
    names: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

// === impl Value ===

impl Value {
    /// A number, right-aligned.
    pub(crate) fn number(number: impl std::fmt::Display) -> Self {
        Self { right: true, ..Self::from(number.to_string()) }
    }

    /// A value in a colour.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { style, ..Self::from(text.into()) }
    }

    fn into_cell(self) -> Cell {
        let mut cell = Cell::new(printable(&self.text));
        if let Some(StyleColor::Ansi(colour)) = self.style.get_fg_color() {
            cell = cell.fg(table_colour(colour));
        }
        if self.style.get_effects().contains(Effects::BOLD) {
            cell = cell.add_attribute(Attribute::Bold);
        }
        if self.style.get_effects().contains(Effects::DIMMED) {
            cell = cell.add_attribute(Attribute::Dim);
        }
        if self.right { cell.set_alignment(CellAlignment::Right) } else { cell }
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self { text, style: Style::new(), right: false }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

// === impl Columns ===

impl Columns {
    /// A table with these columns.
    pub(crate) fn new(names: &[&'static str]) -> Self {
        Self { names: names.to_vec(), rows: Vec::new() }
    }

    /// One more row.
    pub(crate) fn row(&mut self, values: Vec<Value>) {
        self.rows.push(values);
    }

    /// The table as text. With a terminal's width, what does not fit is cut, in the widest columns first.
    pub(crate) fn render(self, facts: Facts, cut: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_truncation_indicator("…");
        if facts.stdout_colour {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        match facts.width.filter(|_| cut) {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width.max(20));
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.set_header(self.names.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        for values in self.rows {
            let mut row = comfy_table::Row::new();
            for value in values {
                row.add_cell(value.into_cell());
            }
            row.max_height(1);
            table.add_row(row);
        }
        let last = self.names.len().saturating_sub(1);
        for (number, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if number == last { 0 } else { 2 }));
        }
        let mut text = String::new();
        for line in table.lines() {
            lines::add(&mut text, &line);
        }
        text
    }
}

fn table_colour(colour: AnsiColor) -> comfy_table::Color {
    use comfy_table::Color;
    match colour {
        AnsiColor::Black => Color::Black,
        AnsiColor::Red => Color::DarkRed,
        AnsiColor::Green => Color::DarkGreen,
        AnsiColor::Yellow => Color::DarkYellow,
        AnsiColor::Blue => Color::DarkBlue,
        AnsiColor::Magenta => Color::DarkMagenta,
        AnsiColor::Cyan => Color::DarkCyan,
        AnsiColor::White => Color::Grey,
        AnsiColor::BrightBlack => Color::DarkGrey,
        AnsiColor::BrightRed => Color::Red,
        AnsiColor::BrightGreen => Color::Green,
        AnsiColor::BrightYellow => Color::Yellow,
        AnsiColor::BrightBlue => Color::Blue,
        AnsiColor::BrightMagenta => Color::Magenta,
        AnsiColor::BrightCyan => Color::Cyan,
        AnsiColor::BrightWhite => Color::White,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Columns {
        let mut table = Columns::new(&["NAME", "N", "WHAT"]);
        table.row(vec!["web".into(), Value::number(3), "a sentence that says a little more".into()]);
        table.row(vec!["api\u{1b}[2J".into(), Value::number(12), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_nothing_is_cut_without_a_terminal() {
        insta::assert_snapshot!(table().render(Facts::default(), true), @r"
        NAME          N   WHAT
        web            3  a sentence that says a little more
        api\u{1b}[2J  12
        ");
    }

    #[test]
    fn a_narrow_terminal_cuts() {
        let facts = Facts { width: Some(40), ..Facts::default() };
        let text = table().render(facts, true);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains('…'), "{text}");
        assert_eq!(table().render(facts, false), table().render(Facts::default(), true), "wide is never cut");
    }
}
