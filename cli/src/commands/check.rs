//! `tug check`: every mistake in manifests, and what they come to.

use serde::Serialize;
use tug_compose::{Finding, Level, Outcome};
use tug_model::spec::Project;

use crate::arguments::{CheckArguments, Format};
use crate::context::Surroundings;
use crate::failure::{FAILED, Failure};
use crate::manifest;
use crate::render::{Screen, finding, structured};

/// A finding for tools.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    level: String,
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    path: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

/// Checks the files; exit code 1 if one of them cannot be used.
pub(crate) fn run(
    screen: &mut Screen,
    surroundings: &Surroundings,
    arguments: &CheckArguments,
) -> Result<(), Failure> {
    let names: Vec<String> = arguments.files.iter().map(|path| path.display().to_string()).collect();
    let groups = if arguments.merge || names.is_empty() {
        vec![names]
    } else {
        names.into_iter().map(|name| vec![name]).collect()
    };
    let outcomes: Vec<Outcome> =
        groups.into_iter().map(|files| manifest::load(files, &arguments.reading, surroundings)).collect();
    let findings: Vec<Finding> = outcomes.iter().flat_map(|one| one.findings.iter().cloned()).collect();
    if arguments.print {
        let projects: Vec<&Project> =
            outcomes.iter().filter_map(|one| one.project.as_ref()).map(|one| &one.project).collect();
        for one in &findings {
            screen.note(&finding::finding(one));
        }
        screen.data(&printed(&projects, arguments.output.format)?)?;
    } else {
        let shown: Vec<Shown<'_>> = findings.iter().map(Shown::new).collect();
        let text = structured::listed(&shown, arguments.output.format, |_| {
            findings.iter().map(finding::finding).collect()
        })?;
        screen.data(&text)?;
    }
    verdict(screen, &outcomes, &findings, arguments.strict)
}

fn verdict(
    screen: &mut Screen,
    outcomes: &[Outcome],
    findings: &[Finding],
    strict: bool,
) -> Result<(), Failure> {
    if let Some(summary) = finding::summary(findings) {
        screen.note(&summary);
    }
    let warned = findings.iter().any(|one| one.level == Level::Warning);
    if outcomes.iter().any(|one| one.project.is_none()) || (strict && warned) {
        return Err(Failure::silent(FAILED));
    }
    Ok(())
}

/// The projects as they are understood; canonical: the same project gives the same text.
fn printed(projects: &[&Project], format: Format) -> Result<String, Failure> {
    if format == Format::Json {
        return match projects {
            [one] => structured::json(one),
            several => structured::json(several),
        };
    }
    let documents: Vec<String> = projects.iter().map(structured::yaml).collect::<Result<_, _>>()?;
    Ok(documents.join("---\n"))
}

// === impl Shown ===

impl<'a> Shown<'a> {
    fn new(finding: &'a Finding) -> Self {
        let placed = finding.line > 0;
        Self {
            level: finding.level.to_string(),
            file: &finding.file,
            line: placed.then_some(finding.line),
            column: placed.then_some(finding.column),
            path: &finding.path,
            message: &finding.message,
            hint: finding.hint.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};
    use crate::render::Facts;

    struct Checked {
        out: String,
        err: String,
        code: u8,
    }

    fn check(files: &[(&str, &str)], line: &str) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let surroundings = Surroundings { folder: folder.path().into(), ..Surroundings::default() };
        let parsed = Arguments::try_parse_from(format!("tug check {line}").split_whitespace()).unwrap();
        let Command::Check(arguments) = parsed.command else { panic!("not a check") };
        let (mut screen, out, err) = Screen::in_memory(Facts::default());
        let code = run(&mut screen, &surroundings, &arguments).map_or_else(|failure| failure.code, |()| 0);
        Checked { out: out.text(), err: err.text(), code }
    }

    const GOOD: &str = "name: shop\nservices:\n  web:\n    image: nginx:1.27\n";
    const BAD: &str = "name: shop\nservices:\n  web:\n    imag: nginx:1.27\n";

    #[test]
    fn a_good_file_is_silent() {
        let checked = check(&[("a.yaml", GOOD)], "a.yaml");
        assert_eq!((checked.code, checked.out.as_str(), checked.err.as_str()), (0, "", ""));
    }

    #[test]
    fn a_mistake_has_its_place_and_the_exit_code_tells() {
        let checked = check(&[("a.yaml", GOOD), ("b.yaml", BAD)], "a.yaml b.yaml");
        assert_eq!(checked.code, FAILED);
        assert!(checked.out.contains("b.yaml:4:5: services.web.imag"), "{}", checked.out);
        assert!(checked.out.contains("image"), "{}", checked.out);
        assert!(checked.err.contains("error"), "{}", checked.err);
        let json = check(&[("b.yaml", BAD)], "-o json b.yaml").out;
        let findings: serde_json::Value = serde_json::from_str(&json).unwrap();
        let unknown =
            findings.as_array().unwrap().iter().find(|one| one["path"] == "services.web.imag").unwrap();
        assert_eq!((&unknown["line"], &unknown["level"]), (&4.into(), &"error".into()));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert_eq!(check(&[], "nowhere.yaml").code, FAILED);
        assert_eq!(check(&[], "").code, FAILED);
    }

    #[test]
    fn the_project_is_printed_as_it_is_understood() {
        let printed = check(&[("a.yaml", GOOD)], "--print a.yaml");
        assert_eq!(printed.code, 0);
        assert!(printed.out.contains("image: nginx:1.27"), "{}", printed.out);
        let json = check(&[("a.yaml", GOOD)], "--print -o json a.yaml").out;
        let project: Project = serde_json::from_str(&json).unwrap();
        assert_eq!(project.name.as_str(), "shop");
    }
}
