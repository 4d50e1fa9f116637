namespace Pesto.Protocol;

/// <summary>The other side said something that the control protocol does not have. The message is the reason.</summary>
public class ProtocolException(string message) : Exception(message);
