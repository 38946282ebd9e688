//! "Did you mean": the known word that a mistyped one is closest to.

/// A hint that names the candidate nearest to `word`, if one is near enough to be a slip of the fingers.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    if word.len() > 64 {
        return None;
    }
    let bearable = match word.chars().count() {
        0..=2 => 1,
        3..=12 => 2,
        _ => 3,
    };
    let lower = word.to_lowercase();
    let distance = |candidate: &str| {
        let exact = strsim::damerau_levenshtein(word, candidate);
        exact.min(strsim::damerau_levenshtein(&lower.replace('-', "_"), candidate))
    };
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= bearable && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["ports", "image", "expose", "env_file"];
        let hint = |word| nearest(word, words.into_iter());
        assert_eq!(hint("prots").as_deref(), Some("did you mean `ports`?"));
        assert_eq!(hint("Image").as_deref(), Some("did you mean `image`?"));
        assert_eq!(hint("env-file").as_deref(), Some("did you mean `env_file`?"));
        assert_eq!(hint("healthy"), None);
        assert_eq!(hint(&"x".repeat(1000)), None);
    }
}
