//! A request as a text to be edited: its first line, its fields, an empty line and its body.

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// What the form takes of the inspector's answer.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    method: String,
    target: String,
    request: Direction,
}

#[derive(Debug, Deserialize)]
struct Direction {
    fields: Vec<Field>,
    cut: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Field {
    name: String,
    value: String,
    #[serde(default)]
    base64: Option<String>,
    masked: bool,
}

/// The form of a request.
#[derive(Debug)]
pub(super) struct Form {
    detail: Detail,
    /// The body, if it is text that can be edited.
    body: Option<String>,
}

/// What stands in the place of a body that is no text.
const BINARY: &str = "# The body is not text, or was not captured whole. It stays as it was if this line stays.";

impl Form {
    /// The form of the request.
    pub(super) fn new(detail: Detail, body: &[u8]) -> Self {
        let is_whole = detail.request.cut.is_none();
        let text = std::str::from_utf8(body).ok().filter(|text| is_whole && !text.contains('\0'));
        Self { body: text.map(str::to_owned), detail }
    }

    /// Its text.
    pub(super) fn text(&self) -> String {
        let Detail { method, target, request } = &self.detail;
        let mut text = format!("{method} {target}\n");
        for Field { name, value, .. } in &request.fields {
            text.extend([name, ": ", value, "\n"]);
        }
        text + "\n" + self.body.as_deref().unwrap_or(BINARY)
    }

    /// What the user has changed, as the inspector takes it.
    pub(super) fn edit(&self, text: &str) -> anyhow::Result<Value> {
        let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end_matches('\n'), ""));
        let mut lines = head.lines();
        let first =
            lines.next().filter(|line| !line.trim().is_empty()).context("the form is empty, so nothing was sent")?;
        let Some((method, target)) = first.trim().split_once(' ') else {
            bail!("the first line is not a method and a path: {first}");
        };
        let mut fields = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { bail!("this line is no field: {line}") };
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut edit = json!({ "method": method, "target": target.trim(), "fields": self.fields(&fields) });
        let is_kept = match &self.body {
            // Editors add a line's end at the end of a file.
            Some(before) => body == before || body.strip_suffix('\n') == Some(before.as_str()),
            None => body.trim_end() == BINARY,
        };
        if !is_kept {
            edit["body"] = json!(body);
        }
        Ok(edit)
    }

    /// The fields for the inspector. One that was shown masked or replaced, and stays, has the value of the original.
    fn fields(&self, edited: &[(String, String)]) -> Vec<Value> {
        let mut taken = vec![false; self.detail.request.fields.len()];
        let field = |(name, value): &(String, String)| {
            let is_original = |(place, field): &(usize, &Field)| {
                !taken[*place] && field.name.eq_ignore_ascii_case(name) && field.value.trim() == value
            };
            match self.detail.request.fields.iter().enumerate().find(is_original) {
                Some((place, field)) if field.masked || field.base64.is_some() || field.value != *value => {
                    taken[place] = true;
                    json!({ "name": name, "original": place })
                }
                Some((place, _)) => {
                    taken[place] = true;
                    json!({ "name": name, "value": value })
                }
                None => json!({ "name": name, "value": value }),
            }
        };
        edited.iter().map(field).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &[u8]) -> Form {
        let detail = json!({
            "method": "POST", "target": "/hooks?x=1",
            "request": { "cut": null, "fields": [
                { "name": "authorization", "value": "•••", "masked": true },
                { "name": "x-a", "value": "1", "masked": false },
                { "name": "x-a", "value": "2", "masked": false },
            ]},
        });
        Form::new(serde_json::from_value(detail).unwrap(), body)
    }

    #[test]
    fn an_unchanged_form_keeps_body_and_secrets() {
        let form = form(b"{}");
        assert_eq!(form.text(), "POST /hooks?x=1\nauthorization: •••\nx-a: 1\nx-a: 2\n\n{}");
        for end in ["", "\n"] {
            let edit = form.edit(&(form.text() + end)).unwrap();
            assert_eq!(edit["fields"][0], json!({ "name": "authorization", "original": 0 }));
            assert_eq!(edit["fields"][2], json!({ "name": "x-a", "value": "2" }));
            assert!(edit.get("body").is_none(), "{edit}");
        }
    }

    #[test]
    fn changes_are_taken() {
        let edit = form(b"{}").edit("PUT /other\nX-B:  new \n\nbody\n\nmore\n").unwrap();
        assert_eq!(
            edit,
            json!({ "method": "PUT", "target": "/other", "fields": [{ "name": "X-B", "value": "new" }], "body": "body\n\nmore\n" })
        );
        for wrong in ["", "\n\n", "GET\n", "GET /\nno field\n"] {
            assert!(form(b"").edit(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_body_that_is_no_text_stays() {
        let form = form(b"\xff\0");
        assert!(form.edit(&form.text()).unwrap().get("body").is_none());
        assert_eq!(form.edit("POST /\n\nnew").unwrap()["body"], json!("new"));
    }
}
