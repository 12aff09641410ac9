# Tells AskOnce what agents do on its tickets: replies, states, merges, and notes that correct it.
#
# A global Scrip: condition "On Transaction", action "User Defined", template "Blank"; this file is
# its "Custom action commit code", and "return 1;" its preparation code. What it needs to know
# stands in RT_SiteConfig.d: AskOnceURL, AskOnceSecret (whsec_...), AskOnceUser.

my $url    = RT->Config->Get('AskOnceURL');
my $secret = RT->Config->Get('AskOnceSecret');
my $own    = RT->Config->Get('AskOnceUser') || 'askonce';
my ($txn, $ticket) = ($self->TransactionObj, $self->TicketObj);
my $who = $txn->CreatorObj;
return 1 unless $url && $secret && $who->Name ne $own;

# Of tickets that AskOnce opened, and those that took one in, only.
my $opened_by_us = sub {
    my $any = RT::Ticket->new(RT->SystemUser);
    $any->LoadById(shift);
    return defined $any->FirstCustomFieldValue('ExternalId');
};
return 1 unless grep { $opened_by_us->($_) } $txn->ObjectId, $ticket->Id, $ticket->Merged;

my %happened = (Correspond => 'ticket.reply', Comment => 'ticket.note', Status => 'ticket.status');
my $type = $happened{$txn->Type};
$type = 'ticket.merged' if $txn->Type eq 'AddLink' && $txn->Field eq 'MergedInto';
return 1 unless $type;

my (%text, @files);
my $parts = $txn->Attachments;
while (my $part = $parts->Next) {
    my $kind = $part->ContentType || '';
    next if $kind =~ m{^multipart/};
    if (!length($part->Filename // '') && $kind =~ m{^text/(plain|html)$} && !exists $text{$kind}) {
        $text{$kind} = $part->Content;
        next;
    }
    push @files, {
        id => 0 + $part->Id, name => $part->Filename, type => $kind, size => 0 + $part->ContentLength,
    };
}
my ($kind) = grep { defined $text{$_} } 'text/plain', 'text/html';
my $text = defined $kind ? $text{$kind} : '';

# A private note leaves only if it begins with one of these commands.
my $commands = qr/not-a-repeat|same-person|different-person/i;
return 1 if $type eq 'ticket.note' && $text !~ /^(?:\s|<[^>]*>)*(?:askonce[:\s]+)?$commands/i;

require Digest::SHA;
require JSON;
require LWP::UserAgent;
require MIME::Base64;
my $body = JSON->new->utf8->canonical->encode({
    type         => $type,
    ticket       => 0 + $txn->ObjectId,
    transaction  => 0 + $txn->Id,
    author       => $who->Name,
    author_name  => $who->RealName || $who->Name,
    is_agent     => $who->Privileged ? JSON::true() : JSON::false(),
    created      => $txn->CreatedObj->W3CDTF(Timezone => 'utc'),
    old          => $txn->OldValue,
    new          => $txn->NewValue,
    content_type => $kind,
    content      => $text,
    files        => \@files,
});
my ($id, $now) = ('rt-' . $txn->Id, time);
(my $key = $secret) =~ s/^whsec_//;
my $proof = Digest::SHA::hmac_sha256("$id.$now.$body", MIME::Base64::decode_base64($key));
my $answer = LWP::UserAgent->new(timeout => 5, max_redirect => 0)->post(
    $url,
    'Content-Type'      => 'application/json',
    'webhook-id'        => $id,
    'webhook-timestamp' => $now,
    'webhook-signature' => 'v1,' . MIME::Base64::encode_base64($proof, ''),
    Content             => $body,
);
# RT does not try again: what is lost here is found when AskOnce asks.
RT->Logger->error('AskOnce did not take transaction ' . $txn->Id . ': ' . $answer->status_line)
    unless $answer->is_success;
return 1;
