//! What `#[shared(…)]` says before a method.

use syn::{Attribute, Result};

/// The options of one method.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) skip: bool,
    pub(crate) quick: bool,
    pub(crate) object: bool,
}

impl Options {
    /// Takes the options out of the attributes of a method.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes.extract_if(.., |attribute| attribute.path().is_ident("shared"))
        {
            attribute.parse_nested_meta(|meta| {
                let option = match meta.path.get_ident().map(ToString::to_string).as_deref() {
                    Some("skip") => &mut options.skip,
                    Some("quick") => &mut options.quick,
                    Some("object") => &mut options.object,
                    _ => return Err(meta.error("it is `skip`, `quick` or `object`")),
                };
                *option = true;
                Ok(())
            })?;
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn options_are_taken_and_other_attributes_stay() {
        let mut attributes: Vec<Attribute> =
            vec![parse_quote!(#[inline]), parse_quote!(#[shared(quick, object)])];
        let options = Options::take(&mut attributes).unwrap();
        assert_eq!(options, Options { skip: false, quick: true, object: true });
        assert_eq!(attributes.len(), 1);
    }

    #[test]
    fn unknown_option_is_an_error_that_names_the_known_ones() {
        let error = Options::take(&mut vec![parse_quote!(#[shared(slow)])]).unwrap_err();
        assert!(error.to_string().contains("`skip`, `quick` or `object`"), "{error}");
    }
}
