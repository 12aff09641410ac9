#!/usr/bin/perl
# What AskOnce needs in a Request Tracker 5, made where it is not there yet:
# its user and token, the rights, the custom fields, and the Scrip that tells it what agents do.
#
#   perl setup.pl [--user askonce] [--new-token] --queue Support [--queue Returns ...]
#
# Run on RT's machine, as a user who may read RT's configuration. Prints the token once. The address
# and the secret stand in RT_SiteConfig.pm: $AskOnceUrl, $AskOnceSecret, $AskOnceUser.
use strict;
use warnings;
use lib '/opt/rt5/lib', '/opt/rt5/local/lib';
use lib '/usr/share/request-tracker5/lib', '/usr/local/share/request-tracker5/lib';
use Getopt::Long;
use RT -init;

my ($login, $new_token, @queues) = ('askonce', 0);
GetOptions('user=s' => \$login, 'new-token' => \$new_token, 'queue=s' => \@queues)
  or die "see the head of this file\n";
die "name a queue: --queue Support\n" unless @queues;
my $system = RT->SystemUser;

sub done {
    my ($ok, $message, @more) = @_;
    die "RT refuses: $message\n" unless $ok;
    return @more;
}

sub custom_field {
    my ($name, $type, $about) = @_;
    my $field = RT::CustomField->new($system);
    $field->LoadByCols(Name => $name, LookupType => $type);
    return if $field->Id;
    done($field->Create(
        Name => $name, Type => 'FreeformSingle', LookupType => $type, Description => $about));
    done($field->AddToObject(RT::Queue->new($system)));    # a queue that is none: everywhere
}

my $ticket = 'RT::Queue-RT::Ticket';
custom_field('ExternalId', $ticket, 'AskOnce: the conversation');
custom_field('Reference', $ticket, 'AskOnce: what the customer quotes');
custom_field('Channel', $ticket, 'AskOnce: where it was asked');
custom_field('Category', $ticket, 'AskOnce: what it is about');
custom_field('MessageId', "$ticket-RT::Transaction", 'AskOnce: which message this is');

my $user = RT::User->new($system);
$user->Load($login);
my $token = $new_token || !$user->Id;
done($user->Create(Name => $login, RealName => 'AskOnce', Privileged => 1)) unless $user->Id;

sub grant {
    my ($object, @rights) = @_;
    for my $right (@rights) {
        next if $user->PrincipalObj->HasRight(Right => $right, Object => $object);
        done($user->PrincipalObj->GrantRight(Right => $right, Object => $object));
    }
}

grant(RT->System, 'AdminUsers');    # to find customers, and to make them known
for my $name (@queues) {
    my $queue = RT::Queue->new($system);
    $queue->Load($name);
    die "there is no queue $name\n" unless $queue->Id;
    grant($queue, qw(SeeQueue CreateTicket ShowTicket ShowTicketComments ReplyToTicket
                     CommentOnTicket ModifyTicket SeeCustomField ModifyCustomField));
}

my $condition = <<'CODE';
my ($txn, $ticket) = ($self->TransactionObj, $self->TicketObj);
my $by = $txn->CreatorObj;
my $login = RT->Config->Get('AskOnceUser') || 'askonce';
return 0 if !RT->Config->Get('AskOnceUrl') || $by->Name eq $login;    # no echo of what it wrote
my $type = $txn->Type;
return 0 unless $type =~ /^(?:Correspond|Comment|Status)$/
  || $type eq 'AddLink' && ($txn->Field || '') eq 'MergedInto';
return 0 if $type =~ /^Co/ && !$by->Privileged;                       # the customer's own mail
if ($type eq 'Comment') {    # notes stay here, but for those that correct AskOnce
    return 0 unless ($txn->Content(Type => 'text/plain') || '') =~
      /^\s*(?:askonce[:\s]+)?(?:not-a-repeat|same-person|different-person)\b/i;
}
my $user = RT::User->new(RT->SystemUser);
$user->Load($login);
return 0 unless $user->Id && $user->HasRight(Right => 'ShowTicket', Object => $ticket);
my $field = RT::CustomField->new(RT->SystemUser);
$field->LoadByCols(Name => 'ExternalId', LookupType => 'RT::Queue-RT::Ticket');
my $values = RT::ObjectCustomFieldValues->new(RT->SystemUser);        # its own, and of merged ones
$values->LimitToCustomField($field->Id);
$values->Limit(FIELD => 'ObjectType', VALUE => 'RT::Ticket');
$values->Limit(FIELD => 'ObjectId', OPERATOR => 'IN',
  VALUE => [$txn->ObjectId, $ticket->Id, $ticket->Merged]);
return $values->Count ? 1 : 0;
CODE

my $commit = <<'CODE';
require Digest::SHA; require JSON; require LWP::UserAgent; require MIME::Base64;
my $txn = $self->TransactionObj;
my $by = $txn->CreatorObj;
my $type = $txn->Type;
my %event = (
  type => $type, transaction => $txn->Id . '', ticket => $txn->ObjectId . '',
  at => $txn->CreatedObj->W3CDTF(Timezone => 'utc'),
  login => $by->Name, author => $by->RealName || $by->Name,
  staff => $by->Privileged ? JSON::true() : JSON::false(),
);
@event{qw(old new)} = ($txn->OldValue, $txn->NewValue) if $type eq 'Status';
$event{into} = $txn->NewValue if $type eq 'AddLink';
if ($type =~ /^Co/) {
  my $parts = $txn->Attachments;
  while (my $part = $parts->Next) {
    my %told = (id => $part->Id . '', type => $part->ContentType, name => $part->Filename || '',
      size => ($part->ContentLength || 0) + 0);
    $told{text} = $part->Content if !$told{name} && $part->ContentType =~ m{^text/(?:plain|html)$};
    push @{ $event{parts} }, \%told;
  }
}
my $body = JSON->new->utf8->canonical->encode(\%event);
my ($id, $now) = ('rt-' . $txn->Id, time);
my ($key) = RT->Config->Get('AskOnceSecret') =~ /^(?:whsec_)?(.+)$/;
my $proof = Digest::SHA::hmac_sha256("$id.$now.$body", MIME::Base64::decode_base64($key));
my $answer = LWP::UserAgent->new(timeout => 5)->post(
  RT->Config->Get('AskOnceUrl'),
  'Content-Type' => 'application/json', 'webhook-id' => $id, 'webhook-timestamp' => $now,
  'webhook-signature' => 'v1,' . MIME::Base64::encode_base64($proof, ''), Content => $body);
# RT does not try again: AskOnce asks for what it did not hear.
RT->Logger->warning('AskOnce: ' . $answer->status_line) unless $answer->is_success;
return 1;
CODE

my $name = 'Tell AskOnce';
my %code = (CustomIsApplicableCode => $condition, CustomCommitCode => $commit);
my $scrip = RT::Scrip->new($system);
$scrip->LoadByCols(Description => $name);
if ($scrip->Id) {
    for my $field (keys %code) {
        my $set = "Set$field";
        done($scrip->$set($code{$field})) if $scrip->$field ne $code{$field};
    }
}
else {
    done($scrip->Create(
        Queue => 0, Description => $name, Template => 'Blank', Stage => 'TransactionCreate',
        ScripCondition => 'User Defined', ScripAction => 'User Defined',
        CustomPrepareCode => 'return 1;', %code));
}

if ($token) {
    my $owner = RT::CurrentUser->new($system);
    my ($line) = done(RT::AuthToken->new($owner)->Create(Owner => $user->Id, Description => 'AskOnce'));
    print "$line\n";
}
