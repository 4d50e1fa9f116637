namespace Pesto.Rules;

/// <summary>A specifier that can't be understood, or rules that can't be. The message is the reason, to go behind the name of what was asked.</summary>
public sealed class RuleException(string message) : Exception(message);
