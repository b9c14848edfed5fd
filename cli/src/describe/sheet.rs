//! A sheet: fields, sections and tables in the layout of `kubectl describe`.

use crate::table::{layout, one_line};

/// A sheet that is being written.
#[derive(Default)]
pub struct Sheet(String);

/// Spaces before what belongs to a section.
const INDENT: &str = "  ";

impl Sheet {
    /// Adds fields, their values below each other. A value of several lines goes on below itself; a field without a
    /// value is left out.
    pub fn fields(&mut self, fields: &[(&str, String)]) {
        self.add_fields(fields, "");
    }

    /// Adds a section of fields; none where no field has a value.
    pub fn section(&mut self, title: &str, fields: &[(&str, String)]) {
        if fields.iter().any(|(_, value)| !value.is_empty()) {
            self.0.push_str(&format!("{title}:\n"));
            self.add_fields(fields, INDENT);
        }
    }

    fn add_fields(&mut self, fields: &[(&str, String)], indent: &str) {
        let rows: Vec<Vec<String>> = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(key, value)| {
                value.lines().enumerate().map(move |(number, line)| {
                    let key = if number == 0 { format!("{indent}{key}:") } else { indent.to_owned() };
                    vec![key, one_line(line)]
                })
            })
            .collect();
        self.0.push_str(&layout(&rows, 2, 0));
    }

    /// Adds a section with a table. A column without any value is left out.
    pub fn table(&mut self, title: &str, headers: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            self.0.push_str(&format!("{title}:  <none>\n"));
            return;
        }
        let shown: Vec<usize> = (0..headers.len()).filter(|&at| rows.iter().any(|row| !row[at].is_empty())).collect();
        let header = shown.iter().map(|&at| headers[at].to_owned());
        let line = shown.iter().map(|&at| "-".repeat(headers[at].chars().count()));
        let mut lines = vec![header.collect(), line.collect()];
        lines.extend(rows.iter().map(|row| {
            let cells = shown.iter().map(|&at| one_line(&row[at]));
            cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect()
        }));
        let body = layout(&lines, 2, 0);
        self.0.push_str(&format!("{title}:\n"));
        body.lines().for_each(|line| self.0.push_str(&format!("{INDENT}{line}\n")));
    }

    /// The text of the sheet.
    pub fn text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_kubectls() {
        let mut sheet = Sheet::default();
        sheet.fields(&[("Name", "a".into()), ("Labels", "b=c\nd=e".into()), ("Nothing", String::new())]);
        sheet.section("Empty", &[("Nothing", String::new())]);
        sheet.section("Status", &[("Phase", "Running".into())]);
        let rows = [vec!["x".into(), String::new(), "1".into()], vec![String::new(), String::new(), "2".into()]];
        sheet.table("Table", &["Name", "Never", "Count"], &rows);
        sheet.table("Events", &["Type"], &[]);
        let expected = "\
Name:    a
Labels:  b=c
         d=e
Status:
  Phase:  Running
Table:
  Name  Count
  ----  -----
  x     1
  -     2
Events:  <none>
";
        assert_eq!(sheet.text(), expected);
    }
}
