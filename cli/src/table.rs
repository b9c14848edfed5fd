//! Tables as kubectl lays them out: left-aligned columns with spaces between, and no lines.

/// Lays out rows. Each column but the last is as wide as its widest cell and `gap` spaces, and at least `narrowest`.
/// The last one is not padded.
pub fn layout(rows: &[Vec<String>], gap: usize, narrowest: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count() + gap).max().unwrap_or_default().max(narrowest)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(row.len().saturating_sub(1)) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(row.last().map(String::as_str).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// A cell's text without what would break the table: line breaks and other control characters.
pub fn one_line(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let rows = [row(&["NAME", "IP", "READY"]), row(&["a-long-name", "", "True"]), row(&["ä", "", ""])];
        let expected = "\
NAME          IP    READY
a-long-name         True
ä                   \n";
        assert_eq!(layout(&rows, 3, 6), expected);
        assert_eq!(layout(&[], 3, 6), "");
    }

    #[test]
    fn what_a_guest_says_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[31m\n"), "a b [31m");
    }
}
