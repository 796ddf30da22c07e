//! Which methods there are, and which of them cannot be shared.

use quote::{ToTokens, format_ident};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, GenericParam, Ident, ImplItem, ImplItemFn, ItemImpl,
    Pat, PathArguments, Receiver, Result, ReturnType, Type, Visibility, parse_quote,
};

use crate::options::Options;

/// A method that clients may call.
pub(crate) struct Method {
    /// Those that the method of the proxy has as well.
    pub(crate) attributes: Vec<Attribute>,
    /// Those that say when there is the method at all.
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) name: Ident,
    pub(crate) changes: bool,
    pub(crate) quick: bool,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) output: Output,
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) of: Type,
    /// Whether it need not be given.
    pub(crate) is_optional: bool,
}

/// What a method returns.
pub(crate) enum Output {
    Value(Type),
    Result(Box<[Type; 2]>),
    Object(Type),
}

/// The methods of a block that are for clients. Takes the options of methods out of it. All that
/// is wrong is reported at once.
pub(crate) fn methods_of(block: &mut ItemImpl) -> Result<Vec<Method>> {
    let mut found = Vec::new();
    let mut problems: Option<Error> = None;
    let own_type = (*block.self_ty).clone();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        match method_of(function, &own_type) {
            Ok(method) => found.extend(method),
            Err(problem) => match &mut problems {
                Some(problems) => problems.combine(problem),
                None => problems = Some(problem),
            },
        }
    }
    problems.map_or(Ok(found), Err)
}

fn method_of(function: &mut ImplItemFn, own_type: &Type) -> Result<Option<Method>> {
    let options = Options::take(&mut function.attrs)?;
    let is_private = matches!(function.vis, Visibility::Inherited);
    let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() else { return Ok(None) };
    if options.skip || is_private {
        return Ok(None);
    }
    let changes = changes(receiver)?;
    check_signature(function)?;
    let arguments = function.sig.inputs.iter().skip(1);
    let arguments = arguments.map(|argument| argument_of(argument, own_type));
    let of_kind = |names: &[&str]| {
        let chosen = function
            .attrs
            .iter()
            .filter(|attribute| names.iter().any(|name| attribute.path().is_ident(name)));
        chosen.cloned().collect()
    };
    Ok(Some(Method {
        attributes: of_kind(&["doc", "deprecated"]),
        conditions: of_kind(&["cfg"]),
        visibility: function.vis.clone(),
        name: function.sig.ident.clone(),
        changes,
        quick: options.quick,
        arguments: arguments.collect::<Result<_>>()?,
        output: output_of(&function.sig.output, options, own_type)?,
    }))
}

/// Whether the receiver is `&mut self`.
fn changes(receiver: &Receiver) -> Result<bool> {
    let text = receiver.to_token_stream().to_string().replace(' ', "");
    match text.as_str() {
        "&self" => Ok(false),
        "&mutself" => Ok(true),
        _ => Err(Error::new_spanned(
            receiver,
            "a method for clients takes `&self` or `&mut self`: other clients may have the object, too. \
             `#[shared(skip)]` before the method keeps it from them",
        )),
    }
}

fn check_signature(function: &ImplItemFn) -> Result<()> {
    let signature = &function.sig;
    if let Some(word) = &signature.asyncness {
        let text =
            "a method for clients is carried out by a thread of the manager, and is not async";
        return Err(Error::new_spanned(word, text));
    }
    if signature.safety.to_token_stream().to_string() == "unsafe" {
        let text = "a method for clients is called by other programs, and cannot be unsafe";
        return Err(Error::new_spanned(&signature.safety, text));
    }
    let open = signature.generics.params.iter().next();
    open.map_or(Ok(()), |parameter| {
        let text = match parameter {
            GenericParam::Lifetime(_) => "what travels to another process is borrowed from nobody",
            _ => "a method for clients is called by its name alone: its types cannot be left open",
        };
        Err(Error::new_spanned(parameter, text))
    })
}

fn argument_of(argument: &FnArg, own_type: &Type) -> Result<Argument> {
    let FnArg::Typed(argument) = argument else {
        return Err(Error::new_spanned(argument, "an argument has a name and a type"));
    };
    let Pat::Ident(pattern) = &*argument.pat else {
        let text = "clients may give an argument by its name: it needs a single one";
        return Err(Error::new_spanned(&argument.pat, text));
    };
    check_type(&argument.ty, "an argument comes from another process: take it by value")?;
    Ok(Argument {
        name: format_ident!("{}", pattern.ident),
        of: named(&argument.ty, own_type),
        is_optional: generics_of(&argument.ty, "Option").is_some(),
    })
}

/// Refuses references and types that are left open.
fn check_type(of: &Type, text: &str) -> Result<()> {
    match of {
        Type::Reference(reference) => {
            let instead = match reference.elem.to_token_stream().to_string().as_str() {
                "str" => "String".to_owned(),
                other => match &*reference.elem {
                    Type::Slice(slice) => format!("Vec<{}>", slice.elem.to_token_stream()),
                    _ => other.to_owned(),
                },
            };
            Err(Error::new_spanned(of, format!("{text}, as a `{instead}`")))
        }
        Type::ImplTrait(_) => {
            let text =
                "a method for clients is called by its name alone: its types cannot be left open";
            Err(Error::new_spanned(of, text))
        }
        _ => Ok(()),
    }
}

fn output_of(output: &ReturnType, options: Options, own_type: &Type) -> Result<Output> {
    let of = match output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, of) => (**of).clone(),
    };
    check_type(&of, "what is returned travels to another process: return it by value")?;
    let parts = generics_of(&of, "Result");
    if options.object {
        if parts.is_some() {
            let text = "an object that stays in the manager cannot be inside a `Result`";
            return Err(Error::new_spanned(of, text));
        }
        return Ok(Output::Object(named(&of, own_type)));
    }
    match parts.as_deref() {
        None => Ok(Output::Value(named(&of, own_type))),
        Some([value, error]) => {
            Ok(Output::Result(Box::new([value, error].map(|of| named(of, own_type)))))
        }
        Some(_) => Err(Error::new_spanned(
            of,
            "write `Result` with both its types: the error travels to another process, too",
        )),
    }
}

/// The types between the angle brackets, if the type has this name.
fn generics_of(of: &Type, name: &str) -> Option<Vec<Type>> {
    let Type::Path(path) = of else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Some(Vec::new()) };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(of) => Some(of.clone()),
        _ => None,
    });
    Some(types.collect())
}

/// A type with the name of the block's own type in the place of `Self`, which would mean the proxy
/// elsewhere.
fn named(of: &Type, own_type: &Type) -> Type {
    fn replace(tokens: proc_macro2::TokenStream, own: &Type) -> proc_macro2::TokenStream {
        tokens
            .into_iter()
            .flat_map(|token| match token {
                proc_macro2::TokenTree::Ident(word) if word == "Self" => own.to_token_stream(),
                proc_macro2::TokenTree::Group(group) => {
                    let mut inner =
                        proc_macro2::Group::new(group.delimiter(), replace(group.stream(), own));
                    inner.set_span(group.span());
                    proc_macro2::TokenTree::Group(inner).into_token_stream()
                }
                other => other.into_token_stream(),
            })
            .collect()
    }
    let replaced = replace(of.to_token_stream(), own_type);
    let verbatim = syn::parse2(replaced);
    verbatim.unwrap_or_else(|_| of.clone())
}

/// Where an error about a type belongs. Names mean there what they mean in the rest of the code.
pub(crate) fn span_of(of: &Type) -> proc_macro2::Span {
    proc_macro2::Span::call_site().located_at(of.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(mut block: ItemImpl) -> Vec<String> {
        match methods_of(&mut block) {
            Ok(_) => Vec::new(),
            Err(error) => error.into_iter().map(|error| error.to_string()).collect(),
        }
    }

    #[test]
    fn public_methods_that_take_the_object_by_reference_are_for_clients() {
        let mut block: ItemImpl = parse_quote! {
            impl Shelf {
                pub fn new() -> Self { Shelf }
                fn private(&self) {}
                #[shared(skip)]
                pub fn skipped(self) {}
                /// Told to clients.
                pub(crate) fn add(&mut self, title: String, place: Option<u8>) -> Result<Self, u8> {}
            }
        };
        let found = methods_of(&mut block).unwrap();
        let [add] = found.as_slice() else { panic!("{} methods", found.len()) };
        assert!(add.name == "add" && add.changes && !add.quick && add.attributes.len() == 1);
        let optional: Vec<_> = add.arguments.iter().map(|one| one.is_optional).collect();
        assert_eq!(optional, [false, true]);
        let Output::Result(types) = &add.output else { panic!("no result") };
        assert_eq!(types[0].to_token_stream().to_string(), "Shelf");
    }

    #[test]
    fn each_problem_is_told_and_all_at_once() {
        let found = problems(parse_quote! {
            impl Shelf {
                pub fn by_value(self) {}
                pub async fn later(&self) {}
                pub fn open<T>(&self, value: T) {}
                pub fn borrowed(&self, title: &str) {}
                pub fn numbers(&self, numbers: &[u8]) {}
                pub fn pattern(&self, (a, b): (u8, u8)) {}
                pub fn half(&self) -> io::Result<u8> {}
                pub fn reference(&self) -> &u8 {}
            }
        });
        let expected = [
            "`&self` or `&mut self`",
            "not async",
            "cannot be left open",
            "as a `String`",
            "as a `Vec<u8>`",
            "needs a single one",
            "both its types",
            "return it by value, as a `u8`",
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn error_points_at_the_argument() {
        let mut block: ItemImpl =
            syn::parse_str("impl Shelf {\n    pub fn add(&mut self, count: u8, title: &str) {}\n}")
                .unwrap();
        let Err(error) = methods_of(&mut block) else { panic!("no error") };
        let place = error.span().start();
        assert_eq!((place.line, place.column), (2, 44));
    }
}
