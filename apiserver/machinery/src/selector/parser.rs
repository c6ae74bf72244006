//! The label selector grammar, with Kubernetes' words where a text does not follow it.

use super::lexer::{Token, tokens};
use super::{Form, Operator, ParseError, Requirement, aggregate, check_key};
use crate::field::Path;

const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

struct Parser {
    tokens: Vec<(Token, String)>,
    position: usize,
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, ParseError> {
    let mut parser = Parser { tokens: tokens(text), position: 0 };
    let mut requirements = Vec::new();
    loop {
        let (token, literal) = parser.peek();
        match token {
            Token::Identifier | Token::Not => {
                let requirement = parser
                    .requirement()
                    .map_err(|error| ParseError::new(format!("unable to parse requirement: {error}")))?;
                requirements.push(requirement);
                let (token, literal) = parser.next();
                match token {
                    Token::End => return Ok(requirements),
                    Token::Comma => {
                        let (token, literal) = parser.peek();
                        if !matches!(token, Token::Identifier | Token::Not) {
                            return Err(found(&literal, "identifier after ','"));
                        }
                    }
                    _ => return Err(found(&literal, "',' or 'end of string'")),
                }
            }
            Token::End => return Ok(requirements),
            _ => return Err(found(&literal, "!, identifier, or 'end of string'")),
        }
    }
}

fn found(literal: &str, expected: &str) -> ParseError {
    ParseError::new(format!("found '{literal}', expected: {expected}"))
}

impl Parser {
    fn raw(&self, position: usize) -> (Token, String) {
        self.tokens.get(position).cloned().unwrap_or((Token::End, String::new()))
    }

    /// `in` and `notin` are identifiers except where an operator stands.
    fn as_value((token, literal): (Token, String)) -> (Token, String) {
        let token = if matches!(token, Token::In | Token::NotIn) { Token::Identifier } else { token };
        (token, literal)
    }

    fn peek(&self) -> (Token, String) {
        Self::as_value(self.raw(self.position))
    }

    fn next(&mut self) -> (Token, String) {
        self.position += 1;
        Self::as_value(self.raw(self.position - 1))
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let (mut token, mut literal) = self.next();
        let is_negated = token == Token::Not;
        if is_negated {
            (token, literal) = self.next();
        }
        if token != Token::Identifier {
            return Err(found(&literal, "identifier"));
        }
        let key = literal;
        if let Some(error) = check_key(&key, &Path::root()) {
            return Err(ParseError::new(aggregate(&[error])));
        }
        if is_negated {
            return Requirement::checked(&key, Operator::DoesNotExist, Vec::new(), Form::Set);
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::checked(&key, Operator::Exists, Vec::new(), Form::Set);
        }
        let (token, literal) = self.raw(self.position);
        self.position += 1;
        let (operator, form) = match token {
            Token::In => (Operator::In, Form::Set),
            Token::NotIn => (Operator::NotIn, Form::Set),
            Token::Equals => (Operator::In, Form::Equals),
            Token::DoubleEquals => (Operator::In, Form::DoubleEquals),
            Token::NotEquals => (Operator::NotIn, Form::Equals),
            Token::Greater => (Operator::GreaterThan, Form::Equals),
            Token::Less => (Operator::LessThan, Form::Equals),
            _ => return Err(found(&literal, BINARY_OPERATORS)),
        };
        let values = if form == Form::Set { self.values()? } else { vec![self.exact_value()?] };
        Requirement::checked(&key, operator, values, form)
    }

    fn exact_value(&mut self) -> Result<String, ParseError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, literal) => Ok(literal),
            (_, literal) => Err(found(&literal, "identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, ParseError> {
        let (token, literal) = self.next();
        if token != Token::Open {
            return Err(ParseError::new(format!("found '{literal}' expected: '('")));
        }
        let (token, literal) = self.peek();
        match token {
            Token::Identifier | Token::Comma => {
                let values = self.identifiers()?;
                if self.next().0 != Token::Close {
                    return Err(found(&literal, "')'"));
                }
                Ok(values)
            }
            Token::Close => {
                self.next();
                Ok(vec![String::new()])
            }
            _ => Err(found(&literal, "',', ')' or identifier")),
        }
    }

    /// Comma-separated identifiers; nothing between commas is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, ParseError> {
        let mut values: Vec<String> = Vec::new();
        loop {
            match self.next() {
                (Token::Identifier, literal) => {
                    values.push(literal);
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, literal) => return Err(found(&literal, "',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    let next = self.peek().0;
                    if values.is_empty() || matches!(next, Token::Close | Token::Comma) {
                        values.push(String::new());
                    }
                    if next == Token::Close {
                        return Ok(values);
                    }
                }
                (_, literal) => return Err(found(&literal, "',', or identifier")),
            }
        }
    }
}
